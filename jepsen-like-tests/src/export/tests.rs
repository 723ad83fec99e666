//! A small history with each kind of event, in each form.

use super::*;
use crate::history::{self, Event};

const HISTORY: &str = r#"
{"index":0,"process":"nemesis","type":"info","f":"kill","value":{"what":"a \"leader\""},"time_ns":1,"node":2}
{"index":1,"process":0,"type":"invoke","f":"register.write","key":"x","value":"a","time_ns":2}
{"index":2,"process":1,"type":"invoke","f":"register.read","key":"x","time_ns":3}
{"index":3,"process":0,"type":"ok","f":"register.write","key":"x","rev":5,"time_ns":4}
{"index":4,"process":1,"type":"ok","f":"register.read","key":"x","value":"a","rev":5,"time_ns":5}
{"index":5,"process":0,"type":"invoke","f":"register.cas","key":"x","value":{"if_rev":5,"value":"b"},"time_ns":6}
{"index":6,"process":1,"type":"invoke","f":"register.cas","key":"x","value":{"if_rev":5,"value":"c"},"time_ns":7}
{"index":7,"process":0,"type":"info","f":"register.cas","key":"x","error":"no answer","time_ns":8}
{"index":8,"process":1,"type":"fail","f":"register.cas","key":"x","rev":6,"time_ns":9}
{"index":9,"process":2,"type":"invoke","f":"send","key":"hall","value":"hi","time_ns":10,"node":1}
{"index":10,"process":2,"type":"ok","f":"send","key":"hall","seq":1,"time_ns":11,"node":1}
"#;

fn events() -> Vec<Event> {
    history::read(HISTORY.trim()).expect("well-formed")
}

type Form = fn(&[Event], Option<&str>, &mut Vec<u8>) -> anyhow::Result<()>;

fn lines(form: Form, key: Option<&str>) -> Vec<String> {
    let mut out = Vec::new();
    form(&events(), key, &mut out).expect("it can be written");
    let text = String::from_utf8(out).expect("it is text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_register_is_the_cas_register_of_knossos() {
    let expected = [
        r#"{:index 0, :process :nemesis, :type :info, :f :kill, :value {"what" "a \"leader\""}, :time 1, :node 2, :event 0}"#,
        r#"{:index 1, :process 0, :type :invoke, :f :write, :value "a", :time 2, :event 1}"#,
        r#"{:index 2, :process 1, :type :invoke, :f :read, :value nil, :time 3, :event 2}"#,
        r#"{:index 3, :process 0, :type :ok, :f :write, :value "a", :time 4, :rev 5, :event 3}"#,
        r#"{:index 4, :process 1, :type :ok, :f :read, :value "a", :time 5, :rev 5, :event 4}"#,
        r#"{:index 5, :process 0, :type :invoke, :f :cas, :value ["a" "b"], :time 6, :event 5}"#,
        r#"{:index 6, :process 1, :type :invoke, :f :cas, :value ["a" "c"], :time 7, :event 6}"#,
        r#"{:index 7, :process 0, :type :info, :f :cas, :value ["a" "b"], :time 8, :error "no answer", :event 7}"#,
        r#"{:index 8, :process 1, :type :fail, :f :cas, :value ["a" "c"], :time 9, :rev 6, :event 8}"#,
    ];
    assert_eq!(lines(edn::write, Some("x")), expected);
}

#[test]
fn without_a_key_values_are_pairs_with_it() {
    let lines = lines(edn::write, None);
    assert_eq!(lines.len(), 11);
    let send =
        r#"{:index 10, :process 2, :type :ok, :f :send, :value ["hall" nil], :time 11, :seq 1, :node 1, :event 10}"#;
    assert_eq!(lines[10], send);
}

#[test]
fn porcupine_gets_calls_and_returns_and_nothing_that_did_not_happen() {
    let expected = [
        r#"{"client_id":0,"kind":"call","id":0,"key":"x","value":{"op":"write","value":"a"}}"#,
        r#"{"client_id":1,"kind":"call","id":1,"key":"x","value":{"op":"read","value":null}}"#,
        r#"{"client_id":0,"kind":"return","id":0,"key":"x","value":{"rev":5,"value":"a"}}"#,
        r#"{"client_id":1,"kind":"return","id":1,"key":"x","value":{"rev":5,"value":"a"}}"#,
        r#"{"client_id":0,"kind":"call","id":2,"key":"x","value":{"op":"cas","value":["a","b"]}}"#,
        r#"{"client_id":0,"kind":"return","id":2,"key":"x","value":{"unknown":true}}"#,
    ];
    assert_eq!(lines(porcupine::write, Some("x")), expected);
}

#[test]
fn a_compare_and_set_on_a_rev_that_nobody_saw_cannot_be_written() {
    let mut events = events();
    events.retain(|event| event.index < 1 || event.index > 4);
    let error = edn::write(&events, Some("x"), &mut Vec::new()).expect_err("the old value is not known");
    assert_eq!(error.to_string(), "event 5: nobody saw what x was at rev 5");
}
