//! `quorate lock run` as a process, against a store that the test plays: whatever happens, the command does not
//! outlive the lock.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// What the store says to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewals {
    Granted,
    Lost,
    /// As a node that was paused: it takes the request, and no answer comes.
    Silent,
}

/// A node with one lock.
struct Store {
    url: String,
    heard: Arc<Mutex<Heard>>,
}

struct Heard {
    held: bool,
    renewals: Renewals,
    ttl_ms: u64,
    /// How long the lock is waited for.
    grant_after: Duration,
    /// Method and path, and when.
    requests: Vec<(String, SystemTime)>,
}

impl Store {
    fn start(held: bool, renewals: Renewals) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Heard {
            held,
            renewals,
            ttl_ms: 1000,
            grant_after: Duration::ZERO,
            requests: Vec::new(),
        }));
        let shared = heard.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let heard = shared.clone();
                std::thread::spawn(move || converse(socket.unwrap(), &heard));
            }
        });
        Self { url, heard }
    }

    fn requests(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.requests.iter().map(|(request, _)| request.clone()).collect()
    }

    /// When the first such request came.
    fn heard_at(&self, wanted: &str) -> SystemTime {
        let heard = self.heard.lock().unwrap();
        let found = heard.requests.iter().find(|(request, _)| request == wanted);
        found.unwrap().1
    }
}

/// One request a connection.
fn converse(mut socket: TcpStream, heard: &Mutex<Heard>) -> Option<()> {
    let at = SystemTime::now();
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let request = line.rsplit_once(' ')?.0.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let ttl_ms = heard.lock().unwrap().ttl_ms;
    let granted = format!(r#"{{"lock":"deploy","owner":"o","token":7,"mode":"exclusive","expires_in_ms":{ttl_ms}}}"#);
    let shown = r#"{"lock":"deploy","mode":"exclusive","queue":[],"waiters":0,"last_token":6,"rev":6,
                    "holders":[{"owner":"ann","token":6,"expires_in_ms":900}]}"#;
    let problem = |status: u16, code: &str| {
        format!(
            r#"{{"type":"about:blank","title":"t","status":{status},"detail":"d","code":"{code}","request_id":"r",
                "retryable":false,"outcome":"not_applied"}}"#
        )
    };
    let (held, renewals) = {
        let mut heard = heard.lock().unwrap();
        heard.requests.push((request.clone(), at));
        (heard.held, heard.renewals)
    };
    let (status, body) = match request.as_str() {
        "PUT /v1/locks/deploy" if held => (409, problem(409, "lock_held")),
        "PUT /v1/locks/deploy" => {
            let wait = heard.lock().unwrap().grant_after;
            std::thread::sleep(wait);
            (200, granted)
        }
        "GET /v1/locks/deploy" => (200, shown.to_owned()),
        "POST /v1/locks/deploy/renew" => match renewals {
            Renewals::Granted => (200, granted),
            Renewals::Lost => (412, problem(412, "lock_lost")),
            Renewals::Silent => {
                // Until the client has gone.
                let _ = socket.read(&mut [0]);
                return None;
            }
        },
        "DELETE /v1/locks/deploy?token=7" => (204, String::new()),
        _ => (404, problem(404, "not_found")),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).ok()
}

/// `quorate lock run` of a shell script, under a ttl of a second. `$DIR` is a directory of the test's.
fn start(urls: &[&str], dir: &Path, script: &str) -> Child {
    start_for("1s", urls, dir, script)
}

fn start_for(ttl: &str, urls: &[&str], dir: &Path, script: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command
        .args(["lock", "run", "deploy", "--ttl", ttl, "--wait", "0", "--owner", "o"])
        .args(["--endpoints", &urls.join(","), "--", "sh", "-c", script])
        .env("DIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(store: &Store, script: &str) -> Output {
    let dir = TempDir::new().unwrap();
    start(&[&store.url], dir.path(), script).wait_with_output().unwrap()
}

/// Asks again and again, for as long as it may reasonably take.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process that wrote its number there.
fn process_of(file: PathBuf) -> i32 {
    eventually(|| std::fs::read_to_string(&file).ok()?.trim().parse().ok())
}

/// One that nobody has waited for yet is dead all the same.
fn is_alive(process: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => false,
    }
}

/// Ignores TERM, has a child that does too, and writes down when it last was alive.
const STUBBORN: &str = r#"trap '' TERM
    sh -c 'trap "" TERM; echo $$ > $DIR/child; while :; do sleep 0.02; done' &
    echo $$ > $DIR/command
    while :; do date +%s%N > $DIR/new; mv $DIR/new $DIR/alive; sleep 0.01; done"#;

/// When the command was last alive.
fn last_alive(dir: &Path) -> SystemTime {
    let text = std::fs::read_to_string(dir.join("alive")).unwrap();
    UNIX_EPOCH + Duration::from_nanos(text.trim().parse().unwrap())
}

#[test]
fn the_command_knows_its_lock_and_its_code_is_the_runs() {
    let store = Store::start(false, Renewals::Granted);
    let ended = run(&store, "echo $QUORATE_LOCK $QUORATE_LOCK_TOKEN; exit 7");
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "deploy 7\n");
    assert_eq!(
        store.requests(),
        ["PUT /v1/locks/deploy", "DELETE /v1/locks/deploy?token=7"]
    );
    assert_eq!(run(&store, "true").status.code(), Some(0));
    assert_eq!(run(&store, "kill -USR1 $$").status.code(), Some(128 + 10));
    assert_eq!(run(&store, "exec /no/such/program").status.code(), Some(127));
}

#[test]
fn without_the_lock_nothing_runs() {
    let store = Store::start(true, Renewals::Granted);
    let ended = run(&store, "echo here");
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "");
    assert!(
        String::from_utf8_lossy(&ended.stderr).contains("ann with token 6"),
        "{ended:?}"
    );
}

#[test]
fn what_the_command_leaves_in_its_group_ends_with_it() {
    let store = Store::start(false, Renewals::Granted);
    let dir = TempDir::new().unwrap();
    let script = "sleep 1000 >/dev/null 2>&1 & echo $! > $DIR/child; exit 3";
    let ended = start(&[&store.url], dir.path(), script).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert!(!is_alive(process_of(dir.path().join("child"))));
}

/// As a daemon hands it on to what it starts.
#[test]
fn who_inherits_that_the_end_of_children_is_ignored_sees_it_all_the_same() {
    let store = Store::start(false, Renewals::Granted);
    // Not every shell can say it.
    let ended = Command::new("env")
        .args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_quorate")])
        .args(["lock", "run", "deploy", "--ttl", "1s", "--endpoints", &store.url])
        .args(["--", "sh", "-c", "sleep 0.2; exit 7"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    assert_eq!(
        store.requests(),
        ["PUT /v1/locks/deploy", "DELETE /v1/locks/deploy?token=7"]
    );
}

#[test]
fn a_lock_whose_renewal_fails_after_the_wait_is_given_back() {
    // The wait took a third of the ttl, and no renewal is answered.
    let store = Store::start(false, Renewals::Silent);
    store.heard.lock().unwrap().grant_after = Duration::from_millis(400);
    let ended = run(&store, "echo here");
    assert_ne!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "");
    assert_eq!(store.requests().last().unwrap(), "DELETE /v1/locks/deploy?token=7");

    // A signal comes while it is being renewed.
    let store = Store::start(false, Renewals::Silent);
    {
        let mut heard = store.heard.lock().unwrap();
        heard.grant_after = Duration::from_millis(3400);
        heard.ttl_ms = 10_000;
    }
    let dir = TempDir::new().unwrap();
    let running = start_for("10s", &[&store.url], dir.path(), "echo here");
    let renews = "POST /v1/locks/deploy/renew".to_owned();
    eventually(|| store.requests().contains(&renews).then_some(()));
    kill(Pid::from_raw(running.id() as i32), Signal::SIGTERM).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(128 + 15), "{ended:?}");
    assert_eq!(store.requests().last().unwrap(), "DELETE /v1/locks/deploy?token=7");
}

#[test]
fn the_lock_is_renewed_past_a_node_that_is_paused() {
    let paused = Store::start(false, Renewals::Silent);
    let live = Store::start(false, Renewals::Granted);
    let dir = TempDir::new().unwrap();
    let ended = start(&[&paused.url, &live.url], dir.path(), "sleep 2.5")
        .wait_with_output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(
        live.requests()
            .iter()
            .filter(|request| request.ends_with("renew"))
            .count()
            >= 2
    );
}

#[test]
fn a_lock_that_cannot_be_renewed_ends_the_command_before_it_is_anothers() {
    let store = Store::start(false, Renewals::Silent);
    let dir = TempDir::new().unwrap();
    let ended = start(&[&store.url], dir.path(), STUBBORN).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        String::from_utf8_lossy(&ended.stderr).contains("could not be renewed in time"),
        "{ended:?}"
    );
    let granted = store.heard_at("PUT /v1/locks/deploy");
    assert!(last_alive(dir.path()) < granted + Duration::from_secs(1));
    for name in ["command", "child"] {
        assert!(!is_alive(process_of(dir.path().join(name))), "{name}");
    }
}

#[test]
fn a_command_may_clean_up_when_the_lock_is_lost() {
    let store = Store::start(false, Renewals::Lost);
    let ended = run(&store, "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.01; done");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "cleaned\n");
    let dir = TempDir::new().unwrap();
    let ended = start(&[&store.url], dir.path(), STUBBORN).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(!is_alive(process_of(dir.path().join("child"))));
}

#[test]
fn signals_are_passed_on() {
    let store = Store::start(false, Renewals::Granted);
    for (signal, code) in [(Signal::SIGTERM, 42), (Signal::SIGINT, 43), (Signal::SIGHUP, 44)] {
        let dir = TempDir::new().unwrap();
        let script = "trap 'exit 42' TERM; trap 'exit 43' INT; trap 'exit 44' HUP
            echo $$ > $DIR/command; while :; do sleep 0.01; done";
        let running = start(&[&store.url], dir.path(), script);
        process_of(dir.path().join("command"));
        kill(Pid::from_raw(running.id() as i32), signal).unwrap();
        let ended = running.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{signal}: {ended:?}");
    }
    let given_back = store
        .requests()
        .iter()
        .filter(|request| request.starts_with("DELETE"))
        .count();
    assert_eq!(given_back, 3);
}

#[test]
fn the_command_dies_with_a_run_that_is_killed() {
    let store = Store::start(false, Renewals::Granted);
    let dir = TempDir::new().unwrap();
    // Its time is not over for long.
    store.heard.lock().unwrap().ttl_ms = 600_000;
    let mut running = start_for("10m", &[&store.url], dir.path(), STUBBORN);
    let processes = ["command", "child"].map(|name| process_of(dir.path().join(name)));
    running.kill().unwrap();
    running.wait().unwrap();
    eventually(|| (!processes.into_iter().any(is_alive)).then_some(()));
}

#[test]
fn the_command_dies_in_time_when_the_run_is_stopped() {
    let store = Store::start(false, Renewals::Granted);
    let dir = TempDir::new().unwrap();
    let running = start(&[&store.url], dir.path(), STUBBORN);
    let processes = ["command", "child"].map(|name| process_of(dir.path().join(name)));
    let stopped = SystemTime::now();
    let process = Pid::from_raw(running.id() as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    eventually(|| (!processes.into_iter().any(is_alive)).then_some(()));
    // A renewal that was sent before may have been answered just then.
    assert!(last_alive(dir.path()) < stopped + Duration::from_secs(1));
    kill(process, Signal::SIGCONT).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
}
