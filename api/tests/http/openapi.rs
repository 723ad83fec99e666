//! The interface's description of itself agrees with what is there.

use crate::caller::Node;

#[tokio::test]
async fn the_document_and_the_page_are_served() {
    let node = Node::new();
    let document = node.get("/openapi.json").await.expect(200);
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.json()["openapi"], "3.1.0");
    let page = node.get("/docs").await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
}
