use std::time::Duration;

use clap::Parser;
use quorate_bench::{Load, Plan};

use super::*;
use crate::cli::{Cli, Command};

fn parse(line: &str) -> Result<Bench, String> {
    let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Bench(bench) => Ok(bench),
        other => panic!("{line} is {other:?}"),
    }
}

fn plan_of(line: &str) -> Plan {
    match parse(line).expect(line) {
        Bench::Send(send) => send.common.load.plan(None, Duration::from_secs(10)).expect(line),
        other => panic!("{line} is {other:?}"),
    }
}

#[test]
fn a_rate_makes_the_loop_an_open_one() {
    assert_eq!(plan_of("quorate bench send").load, Load::Closed { clients: 64 });
    assert_eq!(
        plan_of("quorate bench send --rate 2.5").load,
        Load::Open {
            per_second: 2.5,
            in_flight: 1024
        }
    );
    let plan = plan_of("quorate bench send --clients 7 --warm-up 0 --duration 500ms --sample 3");
    assert_eq!((plan.load, plan.sample), (Load::Closed { clients: 7 }, 3));
    assert_eq!(
        (plan.warm_up, plan.duration),
        (Duration::ZERO, Duration::from_millis(500))
    );
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    for line in [
        "quorate bench",
        "quorate bench send --clients 0",
        "quorate bench send --rate 0",
        "quorate bench send --rate nan",
        "quorate bench send --message-bytes 65537",
        "quorate bench send --duration 0",
        "quorate bench send --over socket",
        "quorate bench batch --size 1001",
        "quorate bench history --limit 501",
        "quorate bench read --messages 0",
        "quorate bench read --level newest",
        "quorate bench locks --owners 0",
        "quorate bench failover",
        "quorate bench failover --transfer --kill-command x",
        "quorate bench failover --transfer --restart-command x",
        "quorate bench failover --transfer --rounds 0",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert!(parse("quorate bench failover --kill-command a --restart-command b").is_ok());
}

#[test]
fn the_flags_are_among_what_is_printed() {
    let Bench::Read(read) = parse("quorate bench read --level local --http 2 --warm-up 1.5").expect("a line") else {
        panic!("it is a read");
    };
    let flags = serde_json::to_value(&read).expect("plain JSON");
    assert_eq!(flags["level"], "local");
    assert_eq!((&flags["http"], &flags["nodes"]), (&"2".into(), &"all".into()));
    assert_eq!((&flags["warm_up"], &flags["message_bytes"]), (&1.5.into(), &256.into()));
}
