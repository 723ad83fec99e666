use super::*;

fn line(text: &str) -> TextLine {
    TextLine {
        text: text.to_owned(),
        replaced_bytes: 0,
    }
}

fn message(seq: u64, text: &str, reply_to: Option<u64>) -> Message {
    Message {
        room: "r".into(),
        seq,
        rev: 9,
        sender: "ann".into(),
        sent_at: "2026-01-02T03:04:05.678Z".into(),
        kind: "text".into(),
        text: Some(text.into()),
        client_id: None,
        reply_to,
        edited_at: None,
        redacted_at: None,
        attributes: None,
    }
}

fn json(message: &Message) -> TextLine {
    line(&serde_json::to_string(message).expect("JSON"))
}

/// The file with these messages, read through once.
fn file(messages: &[Message]) -> JsonLines {
    let mut file = JsonLines::new("f");
    for (number, message) in (1..).zip(messages) {
        file.check(number, &json(message)).expect("a message");
    }
    file
}

#[test]
fn what_a_message_had_is_kept() {
    let given = Message {
        client_id: Some("c".into()),
        reply_to: Some(1),
        attributes: serde_json::json!({"a": [1, {"b": null}]}).as_object().cloned(),
        kind: "notice".into(),
        ..message(2, "hi", None)
    };
    let mut file = file(&[message(1, "first", None), given.clone()]);
    file.begin(0);
    let sent = file.message(2, &json(&given)).expect("a message");
    assert_eq!(
        sent,
        BatchMessage {
            text: "hi".into(),
            client_id: Some("c".into()),
            kind: Some("notice".into()),
            reply_to: Some(1),
            attributes: given.attributes,
            sender: Some("ann".into()),
            sent_at: Some("2026-01-02T03:04:05.678Z".into()),
        }
    );
}

#[test]
fn a_redacted_message_keeps_its_place_with_an_empty_text() {
    let redacted = Message {
        text: None,
        redacted_at: Some("2026-01-03T00:00:00.000Z".into()),
        ..message(1, "", None)
    };
    let mut file = file(std::slice::from_ref(&redacted));
    file.begin(0);
    assert_eq!(file.message(1, &json(&redacted)).expect("a message").text, "");
}

#[test]
fn replies_lead_to_where_the_message_is_here() {
    let messages = [
        message(11, "a", Some(3)),
        message(12, "b", Some(11)),
        message(14, "c", Some(12)),
    ];
    let mut file = file(&messages);
    file.begin(100);
    let replies: Vec<Option<u64>> = (1..)
        .zip(&messages)
        .map(|(number, message)| file.message(number, &json(message)).expect("a message").reply_to)
        .collect();
    assert_eq!(
        replies,
        [None, Some(101), Some(102)],
        "what is not in the file has no place here"
    );
}

#[test]
fn the_rooms_newest_messages_tell_how_many_lines_are_there() {
    let messages: Vec<Message> = (1..=9).map(|seq| message(seq, &format!("text {seq}"), None)).collect();
    let file = file(&messages);
    assert_eq!(file.come_to(&[]), None);
    assert_eq!(file.come_to(&messages[..4]), Some((3, 4)));
    assert_eq!(
        file.come_to(&messages[2..7]),
        Some((4, 7)),
        "the page is shorter than the file"
    );
    let behind_others = [&[message(1, "other", None)], &messages[..2]].concat();
    assert_eq!(file.come_to(&behind_others), Some((2, 2)));
    let others_since = [&messages[..4], &[message(5, "other", None)]].concat();
    assert_eq!(
        file.come_to(&others_since),
        None,
        "then the batches' keys are what counts"
    );
    let redacted = Message {
        text: None,
        ..message(1, "", None)
    };
    let emptied = message(1, "", None);
    assert_eq!(print(&redacted), print(&emptied));
}

#[test]
fn a_file_that_repeats_itself_is_not_taken_for_done() {
    let messages: Vec<Message> = (1..)
        .zip(["x", "y", "x", "x", "y", "x"])
        .map(|(seq, text)| message(seq, text, None))
        .collect();
    let file = file(&messages);
    for lines in 1..=6 {
        assert_eq!(
            file.come_to(&messages[..lines]),
            Some((lines - 1, lines as u64)),
            "{lines} of 6"
        );
    }
    // "y, x" is also lines 2 and 3, but then line 1 would stand before them.
    let others = [message(1, "other", None), message(2, "y", None), message(3, "x", None)];
    assert_eq!(file.come_to(&others), Some((2, 1)));
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    let good = serde_json::to_string(&message(1, "x", None)).expect("JSON");
    for (text, word) in [
        (String::new(), "EOF"),
        ("{".into(), "column 1"),
        ("[]".into(), "is no message"),
        (good.replace("\"seq\":1,", ""), "missing field `seq`"),
        (good.replace("\"ann\"", "\"a b\""), "sender"),
        (good.replace("2026-01-02T", "2026-13-02T"), "sent_at"),
        (
            good.replace("\"text\":\"x\"", &format!("\"text\":\"{}\"", "x".repeat(65537))),
            "65536 bytes",
        ),
        (good.replace("\"kind\":\"text\"", "\"kind\":\"\""), "kind"),
    ] {
        let why = JsonLines::new("f").check(1, &line(&text)).expect_err(&text);
        assert!(why.contains(word), "{why}");
    }
    let mut file = JsonLines::new("f");
    file.check(1, &line(&good)).expect("a message");
    let why = file.check(2, &line(&good)).expect_err("the same seq again");
    assert!(why.contains("does not follow"), "{why}");
    let replaced = TextLine {
        text: good,
        replaced_bytes: 1,
    };
    assert_eq!(JsonLines::new("f").check(1, &replaced), Err("is not UTF-8".to_owned()));
}
