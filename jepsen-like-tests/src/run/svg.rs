//! Drawings of a run over its seconds. Colours come from the page, which has them for light and for dark.

use maud::{Markup, html};

/// Of the drawing area, in units of the drawing; the page scales it to its width.
const WIDTH: f64 = 960.0;
/// Left of it stand the labels.
const LEFT: f64 = 130.0;
const LANE: f64 = 16.0;
const HEIGHT: f64 = 120.0;

/// A row of bars: from and to in seconds, and what is shown when the bar is pointed at.
pub(super) struct Row {
    pub label: String,
    pub class: &'static str,
    pub bars: Vec<(f64, f64, String)>,
}

/// A line over the seconds; none is a gap.
pub(super) struct Line {
    pub label: &'static str,
    pub class: &'static str,
    pub values: Vec<Option<f64>>,
}

/// What lasted from when to when, one row below the other.
pub(super) fn rows(rows: &[Row], seconds: usize) -> Markup {
    let height = LANE * rows.len() as f64;
    let x = |second: f64| LEFT + WIDTH * (second / seconds.max(1) as f64).min(1.0);
    html! {
        svg viewBox=(format!("0 0 {} {}", LEFT + WIDTH, height)) role="img" {
            @for (place, row) in rows.iter().enumerate() {
                @let top = LANE * place as f64;
                text x="0" y=(top + 12.0) { (row.label) }
                line class="grid" x1=(LEFT) x2=(LEFT + WIDTH) y1=(top + LANE) y2=(top + LANE) {}
                @for (from, to, title) in &row.bars {
                    // However short, it is to be seen.
                    rect class=(row.class) x=(short(x(*from))) y=(top + 3.0)
                        width=(short((x(*to) - x(*from)).max(2.0))) height=(LANE - 5.0) { title { (title) } }
                }
            }
        }
    }
}

/// Lines over the same seconds. `unit` follows the figures at the side. With `log` each tenfold is as high as the
/// one before.
pub(super) fn lines(lines: &[Line], unit: &str, log: bool) -> Markup {
    let seconds = lines.iter().map(|line| line.values.len()).max().unwrap_or_default();
    let all = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let scale = |value: f64| if log { value.max(0.1).log10() } else { value };
    let top = scale(all().fold(1.0, f64::max));
    let bottom = match log {
        true => scale(all().fold(f64::MAX, f64::min)).min(top - 1.0),
        false => 0.0,
    };
    let x = |second: usize| LEFT + WIDTH * (second as f64 + 0.5) / seconds.max(1) as f64;
    let y = |value: f64| 8.0 + (HEIGHT - 12.0) * (1.0 - (scale(value) - bottom) / (top - bottom).max(0.001));
    let marks = match log {
        true => (bottom.floor() as i32..=top.ceil() as i32)
            .map(|power| 10f64.powi(power))
            .collect(),
        false => vec![0.0, top / 2.0, top],
    };
    html! {
        svg viewBox=(format!("0 0 {} {}", LEFT + WIDTH, HEIGHT + 20.0)) role="img" {
            @for mark in marks {
                @if (8.0 - 0.5..=HEIGHT).contains(&y(mark)) {
                    line class="grid" x1=(LEFT) x2=(LEFT + WIDTH) y1=(short(y(mark))) y2=(short(y(mark))) {}
                    text class="mark" x=(LEFT - 6.0) y=(short(y(mark) + 4.0)) { (short(mark)) " " (unit) }
                }
            }
            @for (place, line) in lines.iter().enumerate() {
                @for piece in pieces(&line.values) {
                    polyline class=(line.class)
                        points=(piece.iter().map(|(second, value)| format!("{},{}", short(x(*second)), short(y(*value))))
                            .collect::<Vec<_>>().join(" ")) {}
                }
                text class=(format!("key {}", line.class)) x="0" y=(20.0 + 14.0 * place as f64) { (line.label) }
            }
            text class="mark" x=(LEFT + WIDTH) y=(HEIGHT + 14.0) { (seconds) " s" }
            text x=(LEFT) y=(HEIGHT + 14.0) { "0 s" }
        }
    }
}

/// The stretches without a gap.
fn pieces(values: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut pieces: Vec<Vec<(usize, f64)>> = vec![Vec::new()];
    for (second, value) in values.iter().enumerate() {
        match value {
            Some(value) => pieces.last_mut().expect("there is one at least").push((second, *value)),
            None => pieces.push(Vec::new()),
        }
    }
    // A point alone is drawn as a short line.
    for piece in &mut pieces {
        if let [only] = piece.as_slice() {
            piece.push(*only);
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// With one digit behind the point, where it is not a whole number.
fn short(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    format!("{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_parts_a_line() {
        let values = [Some(1.0), Some(2.0), None, Some(3.0)];
        assert_eq!(pieces(&values), [vec![(0, 1.0), (1, 2.0)], vec![(3, 3.0), (3, 3.0)]]);
        assert_eq!(pieces(&[]), Vec::<Vec<(usize, f64)>>::new());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([short(1.0), short(2.345), short(100.0)], ["1", "2.3", "100"]);
    }
}
