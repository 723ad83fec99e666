use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::testing::{Fake, plan};

const CLOSED: Load = Load::Closed { clients: 4 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn report<T: Target>(target: T, plan: Plan) -> Report {
    run(Arc::new(target), plan, Arc::default()).await
}

/// Answers after 1 ms, but for one second of the run, during which it answers nobody.
fn stalls_from(second: u64) -> impl Fn(Call) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>> {
    let begun = Instant::now();
    move |_| {
        Box::pin(async move {
            let stall = begun + Duration::from_secs(second);
            let over = stall + Duration::from_secs(1);
            if (stall..over).contains(&Instant::now()) {
                sleep_until(over).await;
            }
            sleep(ms(1)).await;
            Ok(())
        })
    }
}

/// 100 a second for 10 s: a stall of 1 s concerns 100 of 1000, which had to wait for up to that second.
fn assert_the_stall_shows(report: &Report) {
    let times = report.times[0].percentiles;
    assert_eq!(times.count, 1000, "{report:?}");
    assert!(times.p50_ms < 5.0, "{times:?}");
    assert!((880.0..920.0).contains(&times.p99_ms), "{times:?}");
    assert!((990.0..1010.0).contains(&times.max_ms), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn in_the_open_loop_a_stall_shows_in_the_percentiles() {
    let load = Load::Open {
        per_second: 100.0,
        in_flight: 500,
    };
    let report = report(Fake::new(stalls_from(5)), plan(load)).await;
    assert_the_stall_shows(&report);
    let open = report.open_loop.unwrap();
    assert_eq!(
        (open.late_starts, open.not_started),
        (0, 0),
        "there was room for all of them"
    );
}

#[tokio::test(start_paused = true)]
async fn what_starts_late_for_want_of_room_counts_from_when_it_was_due() {
    let load = Load::Open {
        per_second: 100.0,
        in_flight: 10,
    };
    let report = report(Fake::new(stalls_from(5)), plan(load)).await;
    assert_the_stall_shows(&report);
    let open = report.open_loop.unwrap();
    // Ten of the hundred were under way.
    assert!((85..=92).contains(&open.late_starts), "{open:?}");
    assert_eq!(open.not_started, 0, "all was caught up with");
}

/// The mistake that the open loop is there to avoid, as a measure of it.
#[tokio::test(start_paused = true)]
async fn in_the_closed_loop_a_stall_hides() {
    let report = report(Fake::new(stalls_from(5)), plan(Load::Closed { clients: 1 })).await;
    let times = report.times[0].percentiles;
    assert!(times.p99_9_ms < 5.0 && times.max_ms > 990.0, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_start_before_the_end_is_counted() {
    let load = Load::Open {
        per_second: 100.0,
        in_flight: 10,
    };
    let silent = Fake::new(|_| pending::<Result<(), Fault>>());
    let report = report(silent, plan(load)).await;
    let open = report.open_loop.unwrap();
    assert_eq!(open.not_started, 990, "{report:?}");
    assert_eq!(report.errors, [(NO_ANSWER.to_owned(), 10)].into());
    assert_eq!((report.operations, report.times[0].percentiles.count), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_closed_loop_has_one_operation_a_client() {
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let under_way = now.clone();
    let seen = most.clone();
    let fake = Fake::new(move |_| {
        let (now, most) = (under_way.clone(), seen.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(ms(100)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
    });
    let report = report(fake, plan(CLOSED)).await;
    assert_eq!(most.load(Ordering::Relaxed), 4);
    // The last of each client ends as the window does, and is timed without counting for the rate.
    assert_eq!((report.operations, report.times[0].percentiles.count), (396, 400));
    assert!((report.operations_per_second - 39.6).abs() < 1e-9);
    assert!(
        (99.0..101.5).contains(&report.times[0].percentiles.p50_ms),
        "{report:?}"
    );
    assert_eq!(report.open_loop, None);
    let back = &report.read_back;
    assert_eq!((back.asked, back.held), (400, 400), "every number is another");
}

#[tokio::test(start_paused = true)]
async fn the_warm_up_is_not_counted() {
    let warm_at = Instant::now() + Duration::from_secs(2);
    for load in [
        CLOSED,
        Load::Open {
            per_second: 100.0,
            in_flight: 100,
        },
    ] {
        let warm_at = warm_at.max(Instant::now() + Duration::from_secs(2));
        let fake = Fake::new(move |call: Call| async move {
            if Instant::now() >= warm_at {
                sleep(ms(10)).await;
                return Ok(());
            }
            sleep(ms(250)).await;
            match call.number % 2 {
                0 => Ok(()),
                _ => Err(Fault::code("cold")),
            }
        });
        let plan = Plan {
            warm_up: Duration::from_secs(2),
            ..plan(load)
        };
        let report = report(fake, plan).await;
        let times = report.times[0].percentiles;
        assert!(times.max_ms < 15.0, "{load:?}: {times:?}");
        assert_eq!(report.errors, [].into(), "{load:?}");
        assert_eq!(report.seconds, 10.0);
        if let Load::Open { .. } = load {
            assert_eq!(times.count, 1000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_are_counted_by_their_code() {
    let fake = Fake::new(|call: Call| async move {
        sleep(ms(1)).await;
        match call.number % 10 {
            0 => Err(Fault::code("overloaded")),
            1 | 2 => Err(Fault::code("no_leader")),
            3 => pending().await,
            _ => Ok(()),
        }
    });
    let plan = Plan {
        answer_within: ms(50),
        ..plan(Load::Open {
            per_second: 100.0,
            in_flight: 100,
        })
    };
    let live = Arc::new(Live::default());
    let report = run(Arc::new(fake), plan, live.clone()).await;
    let expected = [("no_answer", 100), ("no_leader", 200), ("overloaded", 100)];
    assert_eq!(report.errors, expected.map(|(code, n)| (code.to_owned(), n)).into());
    assert_eq!(report.errors_count(), 400);
    assert_eq!(
        report.times[0].percentiles.count, 600,
        "errors have no part in the times"
    );
    assert_eq!((live.units(), live.errors()), (600, 400));
}

#[tokio::test(start_paused = true)]
async fn a_code_for_each_error_does_not_fill_memory() {
    let fake = Fake::new(|call: Call| async move { Err(Fault::code(format!("code-{}", call.number))) });
    let report = report(fake, plan(CLOSED)).await;
    assert_eq!(report.errors.len(), 101);
    assert!(report.errors["other"] > 100, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn the_read_back_finds_a_lie() {
    let answer = |_| async {
        sleep(ms(100)).await;
        Ok(())
    };
    let honest = report(Fake::new(answer), plan(CLOSED)).await.read_back;
    assert!(honest.is_good() && honest.asked == 400, "{honest:?}");
    let mut liar = Fake::new(answer);
    liar.lies = [17, 23].into();
    let found = report(liar, plan(CLOSED)).await.read_back;
    assert_eq!((found.asked, found.held, found.lies), (400, 398, 2));
    assert!(!found.is_good());
    assert!(found.told.iter().any(|what| what == "17 is not there"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_so_fails_the_run_also_in_the_warm_up() {
    let begun = Instant::now();
    let fake = Fake::new(move |call: Call| async move {
        sleep(ms(10)).await;
        match begun.elapsed() < ms(100) && call.number == 4 {
            true => Err(Fault::Wrong("two and two are five".into())),
            false => Ok(()),
        }
    });
    let plan = Plan {
        warm_up: Duration::from_secs(1),
        ..plan(CLOSED)
    };
    let found = report(fake, plan).await.read_back;
    assert_eq!((found.lies, found.told), (1, vec!["two and two are five".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn clients_that_fail_at_once_are_held_back() {
    let fake = Fake::new(|_| async { Err(Fault::code("no_connection")) });
    let report = report(fake, plan(CLOSED)).await;
    let failed = report.errors["no_connection"];
    assert!((3000..=4000).contains(&failed), "{failed}");
}

#[test]
fn as_many_are_due_as_have_a_moment_before_the_end() {
    for (seconds, per_second, count) in [(10, 100.0, 1000), (1, 3.0, 3), (7, 0.1, 1), (3, 33.3, 100)] {
        let time = Duration::from_secs(seconds);
        assert_eq!(due_until(time, per_second), count, "{per_second} for {seconds} s");
        assert!(due_after(count - 1, per_second) < time && due_after(count, per_second) >= time);
    }
}

#[test]
fn a_plan_that_cannot_be_meant_is_refused() {
    let good = plan(CLOSED);
    good.check().unwrap();
    let open = |per_second, in_flight| Load::Open { per_second, in_flight };
    for load in [
        Load::Closed { clients: 0 },
        Load::Closed { clients: 20_001 },
        open(0.0, 1),
        open(f64::NAN, 1),
        open(1e9, 1),
        open(1.0, 0),
    ] {
        assert!(Plan { load, ..good }.check().is_err(), "{load:?}");
    }
    for bad in [
        Plan {
            duration: Duration::ZERO,
            ..good
        },
        Plan {
            answer_within: Duration::ZERO,
            ..good
        },
        Plan {
            sample: 1_000_001,
            ..good
        },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
