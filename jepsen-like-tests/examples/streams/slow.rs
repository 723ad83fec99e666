//! A busy room, and beside its readers others who open a stream and read nothing: what the first notice, and what
//! becomes of the second.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use quorate_torture::wait::eventually;
use tokio::task::JoinSet;

use crate::reader::{self, Frame, Place, Reader, Seen};
use crate::{ARRIVES_WITHIN, Run, mb, percentiles, user};

/// A room with texts so large, and so many a second, fills the sockets of those who do not read.
const LARGE_TEXT_BYTES: usize = 16 << 10;
const LARGE_PER_SECOND: f64 = 60.0;
const FAST_READERS: usize = 50;
const SLOW_READERS: usize = 50;
/// What the kernel may hold for a reader who does not read.
const SLOW_RECEIVE_BYTES: u32 = 16 << 10;
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(60);
/// All of them.
pub(crate) const READERS: usize = FAST_READERS + SLOW_READERS;

impl Run<'_> {
    /// With and without them, twice.
    pub(crate) async fn beside_slow_readers(&self) -> Result<()> {
        println!(
            "\nA room with texts of {LARGE_TEXT_BYTES} bytes, {LARGE_PER_SECOND} a second, and {FAST_READERS} readers:\n"
        );
        println!("| readers who do not read | deliveries/s | p50 ms | p99 ms | max ms | memory before, at most |");
        println!("|---|---|---|---|---|---|");
        for slow in [0, SLOW_READERS, 0, SLOW_READERS] {
            self.beside(slow).await?;
        }
        Ok(())
    }

    /// A room of large texts, with readers and with others who open a stream and read nothing of it, until the node
    /// has given them up; then they read what there is, and resume.
    async fn beside(&self, slow: usize) -> Result<()> {
        static RUN: AtomicUsize = AtomicUsize::new(0);
        let room = format!("large-{}", RUN.fetch_add(1, Ordering::Relaxed));
        self.create_rooms(std::slice::from_ref(&room)).await?;
        let before = self.node.memory()?;
        let given_up_before = self.given_up().await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        let mut places = Vec::new();
        for (reader, _) in self.open(FAST_READERS, std::slice::from_ref(&room)).await? {
            let place = Arc::new(Place::default());
            places.push((0, place.clone()));
            tasks.spawn(reader.follow(place, seen.clone(), self.clock));
        }
        let slow_user = user(0);
        let open_slow = || Reader::open(self.address, &room, &slow_user, None, Some(SLOW_RECEIVE_BYTES));
        let slow_readers = try_join_all((0..slow).map(|_| open_slow())).await?;
        let mut most = before;
        let watch = async {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                most = most.max(self.node.memory()?);
            }
            #[allow(unreachable_code)]
            anyhow::Ok(())
        };
        let begun = Instant::now();
        let sent = tokio::select! {
            sent = self.send_steadily(&room, LARGE_PER_SECOND, LARGE_TEXT_BYTES) => sent?,
            failed = watch => { failed?; unreachable!("it looks for ever") }
        };
        self.all_have_come(&places, &[sent]).await?;
        let lasted = begun.elapsed();
        tasks.shutdown().await;
        let seen = std::mem::take(&mut *seen.lock().expect("no holder panics"));
        ensure!(seen.wrong.is_empty(), "{room}: {:?}", seen.wrong);
        let [p50, p99, max] = percentiles(&seen.times);
        println!(
            "| {slow} | {:.0} | {p50:.1} | {p99:.1} | {max:.1} | {:.1}, {:.1} MB |",
            seen.times.len() as f64 / lasted.as_secs_f64(),
            mb(before),
            mb(most)
        );
        if slow == 0 {
            return Ok(());
        }
        eventually("the node gives the slow readers up", GIVEN_UP_WITHIN, async || {
            let given_up = self.given_up().await.map_err(|error| error.to_string())? - given_up_before;
            if given_up as usize >= slow {
                Ok(())
            } else {
                Err(format!("{given_up} of {slow}"))
            }
        })
        .await?;
        let mut told = 0;
        for (reader, first) in slow_readers {
            told += usize::from(self.read_late(reader, first, &room, sent).await?);
        }
        eprintln!("{slow} slow readers were given up, {told} of them were told so; all resumed where they had stopped");
        Ok(())
    }

    async fn given_up(&self) -> Result<f64> {
        self.cluster.metric(self.id, "quorate_http_slow_consumers_total").await
    }

    /// Reads what a stream has left that was given up, resumes, and checks that every message has come once. True if
    /// the stream said why it ended.
    async fn read_late(&self, mut reader: Reader, first: Frame, room: &str, sent: u64) -> Result<bool> {
        let (mut last_id, mut seq, mut was_told) = (first.id, 0, false);
        // A connection that was cut has an end, but no end of its stream.
        while let Ok(Some(frame)) = reader.next().await {
            match frame.event.as_str() {
                "message" => self.is_next(&frame, &mut seq)?,
                "slow_consumer" => was_told = true,
                _ => {}
            }
            last_id = frame.id;
        }
        let (mut resumed, _) = Reader::open(self.address, room, &user(0), Some(&last_id), None).await?;
        while seq < sent {
            let frame = tokio::time::timeout(ARRIVES_WITHIN, resumed.next()).await??;
            let frame = frame.context("a resumed stream ended")?;
            if frame.event == "message" {
                self.is_next(&frame, &mut seq)?;
            }
        }
        Ok(was_told)
    }

    fn is_next(&self, frame: &Frame, seq: &mut u64) -> Result<()> {
        let message = reader::message(frame)?;
        ensure!(
            message.seq == *seq + 1,
            "a slow reader got {} behind {seq}",
            message.seq
        );
        *seq = message.seq;
        Ok(())
    }
}
