//! What the program says: reports on standard output; errors, progress and details on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelport_ir::{Error, Problem};
use serde_json::{Value, json};

/// Work that ends sooner shows no progress.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the program talks.
pub struct Ui {
    json: bool,
    quiet: bool,
    verbose: bool,
    start: Instant,
}

impl Ui {
    pub fn new(json: bool, quiet: bool, verbose: bool) -> Ui {
        Ui { json, quiet, verbose, start: Instant::now() }
    }

    /// Seconds since the program began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Prints the result of a command that has only one form.
    pub fn print(&self, text: &str) -> Result<(), Error> {
        write(&mut io::stdout().lock(), text)
    }

    /// Prints a report: for programs, or for people unless they want quiet. See [`bold`].
    pub fn report(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Error> {
        if self.json {
            return self.print(&format!("{:#}\n", json()));
        }
        if self.quiet {
            return Ok(());
        }
        self.print(&paint(&text(), is_colourful(&io::stdout())))
    }

    /// Prints an error: all its problems, each where it was found and with what to try.
    pub fn fail(&self, error: &Error) {
        let mark = if is_colourful(&io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
        let text = error.to_string();
        let lines = text.lines().map(|line| match line.starts_with(' ') {
            true => format!("{line}\n"),
            false => format!("{mark} {line}\n"),
        });
        // An error that can't be said has nobody who would hear it.
        let _ = write(&mut io::stderr().lock(), &lines.collect::<String>());
        if self.json {
            let problems: Vec<Value> = error.problems.iter().map(problem_json).collect();
            let _ = self.print(&format!("{:#}\n", json!({ "error": problems })));
        }
    }

    /// Runs one stage of the work, with a bar that appears when it takes long. `bytes` is how much it will write, if
    /// that is known; the stage tells what it has written.
    pub fn stage<T>(
        &self,
        name: &str,
        bytes: Option<u64>,
        work: impl FnOnce(&mut dyn FnMut(u64)) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let progress = Progress::new(name, bytes, !self.quiet && !self.json && io::stderr().is_terminal());
        let result = work(&mut |bytes| progress.bar.inc(bytes));
        drop(progress);
        if self.verbose && result.is_ok() {
            let line = format!("{:>8.3} s  {name}\n", start.elapsed().as_secs_f64());
            write(&mut io::stderr().lock(), &line)?;
        }
        result
    }
}

/// A reader that has closed its end has seen enough: that is no error.
fn write(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("the output can't be written: {error}")))
        }
        _ => Ok(()),
    }
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "message": problem.message,
        "file": problem.file.as_ref().map(|file| file.to_string_lossy()),
        "node": problem.node,
        "op": problem.op,
        "inputs": problem.inputs,
        "hint": problem.hint,
    })
}

/// Only a terminal has colours, and only one whose user has not asked for none (<https://no-color.org>).
fn is_colourful(out: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).unwrap_or_default();
    out.is_terminal() && set("NO_COLOR").is_empty() && set("TERM") != "dumb"
}

/// Makes what [`bold`] has marked bold, or as the rest.
fn paint(text: &str, colourful: bool) -> String {
    let mut painted = String::with_capacity(text.len());
    for (index, part) in text.split('\u{1}').enumerate() {
        if index > 0 && colourful {
            painted.push_str(if index % 2 == 1 { "\x1b[1m" } else { "\x1b[0m" });
        }
        painted.push_str(part);
    }
    painted
}

/// Emphasised text, for [`Ui::report`].
pub fn bold(text: &str) -> String {
    format!("\u{1}{text}\u{1}")
}

struct Progress {
    bar: ProgressBar,
    /// Its end tells the thread that there is nothing to show any more.
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    fn new(name: &str, bytes: Option<u64>, visible: bool) -> Progress {
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::hidden());
        if !visible {
            return Progress { bar, done: None, thread: None };
        }
        let template = match bytes {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes}",
            None => "{spinner} {msg} {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(name.to_owned());
        let (done, wait) = mpsc::channel::<()>();
        let shown = bar.clone();
        let thread = thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(100));
            }
        });
        Progress { bar, done: Some(done), thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emphasis_is_for_terminals() {
        let text = format!("a {} c", bold("b"));
        assert_eq!(paint(&text, false), "a b c");
        assert_eq!(paint(&text, true), "a \x1b[1mb\x1b[0m c");
    }
}
