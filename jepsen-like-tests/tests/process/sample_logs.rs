//! The logs to import: those in the folder that QUORATE_TEST_LOGS names, else an invented
//! conversation in the same format, with everything odd that such logs hold.

use std::path::{Path, PathBuf};

use quorate_torture::irc::{self, Line};

/// Writes the sample into `folder` if there are no real logs, and answers with the files, in order.
pub(crate) fn logs(folder: &Path) -> Vec<PathBuf> {
    let Some(named) = std::env::var_os("QUORATE_TEST_LOGS") else {
        println!("QUORATE_TEST_LOGS is not set: importing an invented conversation instead of real logs");
        return write_sample(folder);
    };
    let entries = std::fs::read_dir(&named).unwrap_or_else(|error| panic!("QUORATE_TEST_LOGS ({named:?}): {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".raw.txt"));
    files.sort();
    assert!(!files.is_empty(), "no *.raw.txt in QUORATE_TEST_LOGS ({named:?})");
    files
}

/// Enough lines that an import takes several batches, so that a fault can come in the middle.
const LINES: usize = 4000;

fn write_sample(folder: &Path) -> Vec<PathBuf> {
    let names = [
        "2021-03-14_10.raw.txt",
        "2021-12-31_22.raw.txt",
        "2022-02-28_00.raw.txt",
    ];
    let write = |(file, name): (usize, &&str)| {
        let path = folder.join(name);
        std::fs::write(&path, conversation(file)).unwrap();
        path
    };
    names.iter().enumerate().map(write).collect()
}

/// Lines of file number `file`: the clock passes noon in the first and midnight in the second.
fn conversation(file: usize) -> Vec<u8> {
    let nicks: [&[u8]; 9] = [
        b"ann",
        b"[Nick]|away",
        b"brad[] ",
        "张三".as_bytes(),
        b"J\xf6rg",
        b"`tick`",
        "Zoë".as_bytes(),
        b"x_x^",
        b"{a}\\b",
    ];
    let subjects = [
        "the tide",
        "my lamp",
        "a small boat",
        "nobody here",
        "the 3rd bridge",
        "茶",
    ];
    let verbs = [
        "is late",
        "sounds fine",
        "broke again :/",
        "costs too much, really",
        "needs oil",
    ];
    let begin_minutes = [10 * 60 + 30, 22 * 60 + 30, 1][file];
    let mut out = Vec::new();
    for line in 0..LINES {
        // Steps of 7 and 11 are prime to the lengths, so that all combinations come up.
        let guest = format!("guest-{file}-{}", line % 97);
        let nick = if line % 5 == 0 {
            guest.as_bytes()
        } else {
            nicks[line * 7 % nicks.len()]
        };
        let said = format!(
            "{} {}",
            subjects[line * 11 % subjects.len()],
            verbs[line * 7 % verbs.len()]
        );
        let minutes = (begin_minutes + line / 25) % (24 * 60);
        // The first file's clock has twelve hours, as many logs' have.
        let hours = if file == 0 {
            (minutes / 60 + 11) % 12 + 1
        } else {
            minutes / 60
        };
        let stamp = format!("[{hours:02}:{:02}]", minutes % 60);
        match line % 40 {
            7 => out.extend(
                [
                    stamp.as_bytes(),
                    b"  * ",
                    nick.trim_ascii(),
                    b" looks for ",
                    said.as_bytes(),
                ]
                .concat(),
            ),
            13 => out.extend([b"=== ", nick.trim_ascii(), b" [~x@host.example] has joined #harbour"].concat()),
            19 => out.extend(
                [
                    stamp.as_bytes(),
                    b" <",
                    nick,
                    b"> caf\xe9, \xc3 and \xff: ",
                    said.as_bytes(),
                ]
                .concat(),
            ),
            23 => out.extend(
                [
                    stamp.as_bytes(),
                    b" <",
                    nick,
                    b"> <not a nick> [09:99]\ttab \x08 and  two  blanks ",
                ]
                .concat(),
            ),
            _ => out.extend([stamp.as_bytes(), b" <", nick, b"> ", said.as_bytes()].concat()),
        }
        out.push(b'\n');
    }
    out
}

/// The sample is only worth importing while it holds what makes importing hard.
#[test]
fn the_sample_holds_every_kind_of_line() {
    let logs: Vec<Vec<Line>> = (0..3).map(|file| irc::parse(&conversation(file))).collect();
    for lines in &logs {
        assert_eq!(lines.len(), LINES);
        for kind in ["text", "action", "system"] {
            assert!(lines.iter().filter(|line| line.kind == kind).count() >= 100, "{kind}");
        }
        assert!(
            lines.iter().any(|line| line.text.contains('\u{fffd}')),
            "bytes that are not UTF-8"
        );
        for sender in ["root", "brad[]", "张三", "J\u{fffd}rg", "[Nick]|away"] {
            assert!(lines.iter().any(|line| line.sender == sender), "{sender}");
        }
    }
    let last = |file: usize| irc::minutes(&logs[file]).into_iter().flatten().last().unwrap();
    assert!(
        last(0) > 13 * 60 && last(1) > 24 * 60,
        "the clocks pass noon and midnight"
    );
}
