//! An answer on its way: it holds its share of what all answers may take until it is written.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::budget::{Budget, Share};
use crate::problem::Problem;

/// A longer answer goes to the connection in pieces of this, as the peer takes them: handed over
/// whole, it would wait there where nobody counts it.
const PIECE_BYTES: usize = 64 << 10;
/// A shorter answer is not counted: its head takes as much.
const COUNTED_BYTES_MIN: u64 = 1 << 10;

/// The same answer, counted; refused if there is no room for it. Streams are bounded by themselves.
pub(crate) fn held(budget: &Budget, response: Response) -> Result<Response, Problem> {
    let bytes = match response.body().size_hint().exact() {
        Some(bytes) if bytes >= COUNTED_BYTES_MIN => bytes,
        _ => return Ok(response),
    };
    let mut share = Share::default();
    budget.take(&mut share, usize::try_from(bytes).unwrap_or(usize::MAX))?;
    Ok(response.map(|body| {
        Body::new(Held {
            body,
            piece: Bytes::new(),
            left: bytes,
            _share: share,
        })
    }))
}

struct Held {
    body: Body,
    /// What came out of the body and was not handed on yet.
    piece: Bytes,
    left: u64,
    _share: Share,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.piece.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => self.piece = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let bytes = self.piece.len().min(PIECE_BYTES);
        self.left -= bytes as u64;
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use prometheus::Registry;

    use super::*;
    use crate::config::Limits;
    use crate::metrics::Metrics;

    fn budget(answers_bytes_max: usize) -> Budget {
        let limits = Limits {
            answers_bytes_max,
            ..Limits::default()
        };
        Budget::of_answers(&limits, &Metrics::new(Registry::new()))
    }

    #[tokio::test]
    async fn an_answer_goes_in_pieces_and_gives_its_share_back_with_the_last() {
        let budget = budget(200 << 10);
        let text: Vec<u8> = (0..150 << 10).map(|n: u32| (n % 251) as u8).collect();
        let answer = || held(&budget, Response::new(Body::from(text.clone())));
        let mut first = answer().unwrap().into_body();
        assert_eq!(first.size_hint().exact(), Some(150 << 10));
        assert_eq!(answer().unwrap_err().code(), "overloaded");
        let (mut got, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = first.frame().await {
            got.extend_from_slice(&frame.unwrap().into_data().unwrap());
            pieces += 1;
        }
        assert_eq!((pieces, got == text), (3, true));
        drop(first);
        assert!(answer().is_ok());
    }

    #[tokio::test]
    async fn what_is_small_or_has_no_length_is_not_counted() {
        let budget = budget(0);
        assert!(held(&budget, Response::new(Body::from("short"))).is_ok());
        let endless = futures::stream::iter([Ok::<_, axum::Error>(Bytes::from(vec![0; 4096]))]);
        assert!(held(&budget, Response::new(Body::from_stream(endless))).is_ok());
    }
}
