//! The report of a run: one page that needs nothing else, for a light and a dark screen.

use std::collections::{BTreeMap, BTreeSet};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::measure::Latency;
use super::outcome::{Conclusion, Outcome};
use super::spells::{QUIET, Spell, spells};
use super::svg::{self, Line, Row};
use crate::checker::Verdict;
use crate::history::{Event, Kind};

const STYLE: &str = include_str!("report.css");
const NS: f64 = 1e9;
/// Lines of the history that are shown beside the violations.
const EVENTS_SHOWN_MAX: usize = 400;
/// Of a line of the history, which may hold a whole room.
const LINE_CHARS_MAX: usize = 600;

pub fn report(outcome: &Outcome, events: &[Event]) -> String {
    let spells = spells(events);
    let title = format!("torture, seed {}", outcome.settings.seed);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header class=(class_of(outcome.conclusion)) { h1 { (outcome.headline) } }
                (reasons("What failed", &outcome.failures))
                (reasons("Why it is in doubt", &outcome.doubts))
                (time_line(outcome, &spells))
                (faults(outcome, &spells))
                (verdicts(&outcome.verdicts))
                (operations(outcome))
                (gates(outcome))
                (excerpt(&outcome.verdicts, events))
                (settings(outcome))
            }
        }
    };
    page.into_string()
}

fn class_of(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Passed => "passed",
        Conclusion::Failed => "failed",
        Conclusion::Inconclusive => "doubtful",
    }
}

fn reasons(title: &str, reasons: &[String]) -> Markup {
    html! {
        @if !reasons.is_empty() {
            section {
                h2 { (title) }
                ul { @for reason in reasons { li { (linked(reason)) } } }
            }
        }
    }
}

fn time_line(outcome: &Outcome, spells: &[Spell]) -> Markup {
    let seconds = outcome.measures.by_second.len();
    let kinds: BTreeSet<&str> = spells.iter().map(|spell| spell.kind.as_str()).collect();
    let row = |kind: &str| Row {
        label: kind.to_owned(),
        class: if kind == QUIET { "quiet" } else { "fault" },
        bars: spells.iter().filter(|spell| spell.kind == kind).map(bar).collect(),
    };
    let rows: Vec<Row> = kinds.iter().map(|kind| row(kind)).collect();
    let line = |label, class, count: fn(&super::measure::Counts) -> u64| Line {
        label,
        class,
        values: outcome
            .measures
            .by_second
            .iter()
            .map(|counts| Some(count(counts) as f64))
            .collect(),
    };
    let rates = [
        line("done", "ok", |counts| counts.ok),
        line("refused", "fail", |counts| counts.failed),
        line("unknown", "unknown", |counts| counts.unknown),
    ];
    html! {
        section {
            h2 { "Faults and operations over time" }
            figure { (svg::rows(&rows, seconds)) }
            figure { (svg::lines(&rates, "/s", false)) figcaption { "operations that ended in each second" } }
            @for (name, measured) in &outcome.measures.operations {
                @let line = |label, class, of: fn(&Latency) -> u32| Line {
                    label,
                    class,
                    values: measured.by_second.iter().map(|at| at.as_ref().map(|at| ms(of(at)))).collect(),
                };
                @let lines = [
                    line("p50", "p50", |latency| latency.p50_us),
                    line("p99", "p99", |latency| latency.p99_us),
                    line("max", "max", |latency| latency.max_us),
                ];
                figure {
                    (svg::lines(&lines, "ms", true))
                    figcaption { "how long a " b { (name) } " took that was done" }
                }
            }
        }
    }
}

fn bar(spell: &Spell) -> (f64, f64, String) {
    let from = spell.begun_ns as f64 / NS;
    let to = spell.healed_ns.map_or(f64::MAX, |healed| healed as f64 / NS);
    let lasted = spell
        .healed_ns
        .map_or("to the end".to_owned(), |_| format!("{:.1} s", to - from));
    let title = format!(
        "{} at {from:.1} s, {lasted}: {} (event {})",
        spell.kind, spell.what, spell.index
    );
    (from, to, title)
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

fn faults(outcome: &Outcome, spells: &[Spell]) -> Markup {
    html! {
        section {
            h2 { "Faults" }
            table {
                tr { th { "kind" } th { "times" } th { "nodes" } th { "longest without an acknowledged write" } th { "declined" } }
                @for (kind, of_kind) in &outcome.faults {
                    tr {
                        td { (kind) }
                        td class="number" { (of_kind.times) }
                        td {
                            @for (node, times) in &of_kind.nodes { span class="node" { (node) "×" (times) } " " }
                        }
                        td class="number" { (of_kind.longest_without_write_ms) " ms" }
                        td class="number" { (outcome.declined.get(kind.as_str()).copied().unwrap_or_default()) }
                    }
                }
            }
            p { "The longest time is looked for from the beginning of a fault until ten seconds after its end; faults that "
                "overlap share it. Declined: how often the kind was not to be made at that moment." }
            @if !outcome.skipped.is_empty() {
                h3 { "Skipped: asked for, and not to be made here" }
                ul { @for (kind, why) in &outcome.skipped { li { b { (kind) } ": " (why) } } }
            }
            @if let Some(ms) = outcome.converged_ms {
                p { "After the last one was healed, all nodes were ready, took writes and had identical state hashes within "
                    (ms) " ms." }
            }
            details {
                summary { "Each fault" }
                table {
                    tr { th { "event" } th { "begun" } th { "lasted" } th { "kind" } th { "what" } }
                    @for spell in spells.iter().filter(|spell| spell.kind != QUIET) {
                        tr {
                            td class="number" { (spell.index) }
                            td class="number" { (format!("{:.1} s", spell.begun_ns as f64 / NS)) }
                            td class="number" {
                                @match spell.healed_ns {
                                    Some(healed) => (format!("{:.1} s", healed.saturating_sub(spell.begun_ns) as f64 / NS)),
                                    None => "to the end",
                                }
                            }
                            td { (spell.kind) }
                            td { (spell.what) }
                        }
                    }
                }
            }
        }
    }
}

fn verdicts(verdicts: &[Verdict]) -> Markup {
    html! {
        section {
            h2 { "Checkers" }
            @for verdict in verdicts {
                @let judgement = &verdict.judgement;
                h3 { (verdict.checker) ": "
                    @if let Some(error) = &verdict.error {
                        span class="doubtful" { "cannot be judged: " (error) }
                    } @else if judgement.violations_total > 0 {
                        span class="failed" { (judgement.violations_total) " violations" }
                    } @else {
                        span class="passed" { "no violation" }
                    }
                }
                p { (verdict.about) ". It took " (verdict.took_ms) " ms." }
                ul class="counts" { @for (what, count) in &judgement.counts { li { b { (count) } " " (what) } } }
                @if !judgement.violations.is_empty() {
                    ol { @for violation in &judgement.violations { li { (linked(violation)) } } }
                    @if judgement.violations_total > judgement.violations.len() as u64 {
                        p { "and " (judgement.violations_total - judgement.violations.len() as u64) " more" }
                    }
                }
            }
        }
    }
}

fn operations(outcome: &Outcome) -> Markup {
    html! {
        section {
            h2 { "Operations" }
            table {
                tr { th { "operation" } th { "done" } th { "refused" } th { "unknown" } th { "p50" } th { "p99" } th { "max" } }
                @for (name, measured) in &outcome.measures.operations {
                    tr {
                        td { (name) }
                        td class="number" { (measured.counts.ok) }
                        td class="number" { (measured.counts.failed) }
                        td class="number" { (measured.counts.unknown) }
                        @for us in [measured.latency.p50_us, measured.latency.p99_us, measured.latency.max_us] {
                            td class="number" { (format!("{:.1} ms", ms(us))) }
                        }
                    }
                }
            }
        }
    }
}

fn gates(outcome: &Outcome) -> Markup {
    html! {
        section {
            h2 { "Whether enough happened" }
            table {
                @for gate in &outcome.gates {
                    tr {
                        td class=(if gate.met { "passed" } else { "doubtful" }) { (if gate.met { "met" } else { "not met" }) }
                        td { (gate.name) }
                        td { (gate.why) }
                    }
                }
            }
        }
    }
}

/// The lines of the history that the violations name, each operation with both its ends.
fn excerpt(verdicts: &[Verdict], events: &[Event]) -> Markup {
    let violations = verdicts.iter().flat_map(|verdict| &verdict.judgement.violations);
    let named: BTreeSet<u64> = violations
        .flat_map(|violation| numbers(violation))
        .map(|(_, number)| number)
        .collect();
    let mut shown: BTreeMap<u64, &Event> = BTreeMap::new();
    for index in named.iter().take(EVENTS_SHOWN_MAX) {
        let Some(place) = usize::try_from(*index).ok().filter(|place| *place < events.len()) else {
            continue;
        };
        let begun = &events[place];
        shown.insert(*index, begun);
        if begun.kind == Kind::Invoke {
            let end = events[place + 1..].iter().find(|event| event.process == begun.process);
            shown.extend(end.map(|end| (end.index, end)));
        }
    }
    html! {
        @if !shown.is_empty() {
            section {
                h2 { "From the history" }
                p { "Event N is line N + 1 of " a href="history.jsonl" { "history.jsonl" } "." }
                @for (index, event) in shown {
                    pre id=(format!("event-{index}")) { (line(event)) }
                }
            }
        }
    }
}

fn line(event: &Event) -> String {
    let line = serde_json::to_string(event).expect("an event has string keys only");
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn settings(outcome: &Outcome) -> Markup {
    html! {
        section {
            h2 { "This run" }
            table {
                @for (name, version) in &outcome.versions { tr { td { (name) } td { (version) } } }
                tr { td { "seed" } td { (outcome.settings.seed) } }
                tr { td { "again" } td { code { (outcome.replay) } } }
                tr { td { "checked again" } td { code { "torture check history.jsonl" } } }
            }
            p { "The seed decides which faults are drawn and what clients send. Threads, disks and the network decide the rest: "
                "the same seed makes a similar run, not the same one." }
        }
    }
}

/// The text with a link at each number of an event.
fn linked(text: &str) -> Markup {
    let mut pieces = Vec::new();
    let mut from = 0;
    for (range, number) in numbers(text) {
        pieces.push((&text[from..range.start], Some((number, &text[range.clone()]))));
        from = range.end;
    }
    pieces.push((&text[from..], None));
    html! {
        @for (before, link) in pieces {
            (before)
            @if let Some((number, shown)) = link { a href=(format!("#event-{number}")) { (shown) } }
        }
    }
}

/// Where numbers follow the word `event` or `events`, and which.
fn numbers(text: &str) -> Vec<(std::ops::Range<usize>, u64)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("event") {
        let mut place = at + "event".len();
        place += usize::from(text[place..].starts_with('s'));
        loop {
            let gap = text[place..].find(|c: char| !matches!(c, ' ' | ',' | '[')).unwrap_or(0);
            let begin = place + gap;
            let digits = text[begin..]
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len() - begin);
            let Ok(number) = text[begin..begin + digits].parse() else {
                break;
            };
            found.push((begin..begin + digits, number));
            place = begin + digits;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<u64> {
        numbers(text).into_iter().map(|(_, number)| number).collect()
    }

    #[test]
    fn the_events_that_a_violation_names_are_found() {
        assert_eq!(found("lost: \"a\", acknowledged at seq 3 (event 12)"), [12]);
        assert_eq!(found("seq 1 was given to the events [0, 22]"), [0, 22]);
        assert_eq!(found("event 5 ends before event 7; events"), [5, 7]);
        assert_eq!(found("nothing at seq 3"), [0; 0]);
    }

    #[test]
    fn a_violation_links_to_its_events_and_its_text_is_escaped() {
        let html = linked("lost: <b> (event 12) at last").into_string();
        assert_eq!(html, "lost: &lt;b&gt; (event <a href=\"#event-12\">12</a>) at last");
    }
}
