//! Names are what people call themselves: any script, any bracket, percent-encoded on the wire.

use quorate_torture::cluster::Cluster;
use quorate_torture::http::{Call, encoded};
use quorate_torture::workload::messages;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_with_unusual_names_talk_in_rooms_with_unusual_names() {
    let cluster = Cluster::options().start().await.unwrap();
    let users = ["张三", "[Nick]|away"];
    let rooms = ["room-7", "茶馆", "50%_off?#&=+"];
    for user in users {
        let made = cluster.create_user(2, user).await.unwrap();
        assert_eq!(made.json().unwrap()["user"], user);
        for path in ["/v1/users", "/api/users"] {
            let found = cluster
                .expect(3, Call::get(format!("{path}/{}", encoded(user))), 200)
                .await
                .unwrap();
            assert_eq!(found.json().unwrap()["user"], user);
        }
    }
    for room in rooms {
        cluster.create_room(1, room).await.unwrap();
        for (turn, user) in users.iter().enumerate() {
            let call = Call::post(messages(room), &json!({ "text": format!("{user} 说 \"hi\"") })).as_user(user);
            let sent = cluster
                .expect(turn as u64 + 1, call, 201)
                .await
                .unwrap()
                .json()
                .unwrap();
            assert_eq!(
                (sent["seq"].as_u64(), sent["sender"].as_str()),
                (Some(turn as u64 + 1), Some(*user))
            );
            assert_eq!(sent["room"], room);
        }
        let page = cluster
            .expect(3, Call::get(messages(room)), 200)
            .await
            .unwrap()
            .json()
            .unwrap();
        for (message, user) in page["messages"].as_array().unwrap().iter().zip(users) {
            assert_eq!(message["sender"], user);
            assert_eq!(message["text"], format!("{user} 说 \"hi\""));
        }
        // The member's name stands in the path too.
        let member = format!("/v1/rooms/{}/members/{}", encoded(room), encoded(users[0]));
        cluster
            .expect(2, Call::put(member, &json!({ "role": "member" })), 201)
            .await
            .unwrap();
    }
    // Names are matched exactly: case counts.
    cluster.create_user(1, "Ann").await.unwrap();
    cluster.expect(1, Call::get("/v1/users/ann"), 404).await.unwrap();
}
