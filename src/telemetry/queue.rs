//! Lines on their way to an output that may be slow, or stand still.
//!
//! Whoever logs never waits: a line goes into a bounded queue, and one that
//! finds no place is dropped and counted (RELIABILITY G-56). One thread per output
//! takes them out, so lines keep their order and none is ever cut in two.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use metrics::{Counter, counter};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait, and their bytes.
const MOST_LINES: usize = 16 * 1024;
const MOST_BYTES: usize = 16 * 1024 * 1024;
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Where lines end up. Gets each as a whole, with its line break.
pub trait Output: Send + 'static {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()>;
}

/// Of a stream that is written to and never looked at again.
pub struct Plain<W>(pub W);

impl<W: Write + Send + 'static> Output for Plain<W> {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line)?;
        self.0.flush()
    }
}

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

/// The way to one output. Clones share it.
#[derive(Clone)]
pub struct Queue {
    messages: SyncSender<Message>,
    /// Of the lines that wait.
    bytes: Arc<AtomicUsize>,
    dropped: Counter,
}

impl Queue {
    /// Starts the thread that writes. `name` is the output's in the metrics.
    pub fn start(name: &'static str, output: impl Output) -> io::Result<Self> {
        let (messages, waiting) = mpsc::sync_channel(MOST_LINES);
        let bytes = Arc::<AtomicUsize>::default();
        let dropped = counter!("tollgate_log_lines_dropped_total", "output" => name);
        let writer = Writer { output, waiting, bytes: bytes.clone(), dropped: dropped.clone() };
        thread::Builder::new().name(format!("log-{name}")).spawn(move || writer.run())?;
        Ok(Self { messages, bytes, dropped })
    }

    fn push(&self, line: &[u8]) {
        let length = line.len();
        if self.bytes.fetch_add(length, Relaxed) + length <= MOST_BYTES
            && self.messages.try_send(Message::Line(line.to_vec())).is_ok()
        {
            return;
        }
        self.bytes.fetch_sub(length, Relaxed);
        self.dropped.increment(1);
    }

    /// Waits until all that was pushed before is written, but not for longer;
    /// whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
            if Instant::now() >= deadline {
                return false;
            }
            message = back;
            thread::sleep(LOOK_AGAIN);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        !matches!(written.recv_timeout(left), Err(RecvTimeoutError::Timeout))
    }
}

/// One line at each call, as the layers write them.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Queue {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

struct Writer<O> {
    output: O,
    waiting: Receiver<Message>,
    bytes: Arc<AtomicUsize>,
    dropped: Counter,
}

impl<O: Output> Writer<O> {
    fn run(mut self) {
        while let Ok(message) = self.waiting.recv() {
            match message {
                Message::Line(line) => {
                    // There is nowhere to report that the log cannot be written.
                    if self.output.write_line(&line).is_err() {
                        self.dropped.increment(1);
                    }
                    self.bytes.fetch_sub(line.len(), Relaxed);
                }
                // Whoever asked may have given up.
                Message::Flush(done) => _ = done.try_send(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc::Sender};

    use super::*;

    struct Gate {
        open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Output for Mutex<Gate> {
        fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
            let gate = self.get_mut().unwrap();
            // Ends for good when the test lets go of it.
            _ = gate.open.recv();
            gate.written.send(line.to_vec()).unwrap();
            Ok(())
        }
    }

    #[test]
    fn an_output_that_stands_still_holds_up_nobody_and_what_it_got_is_whole_and_in_order() {
        let ((release, open), (written, lines)) = (mpsc::channel(), mpsc::channel());
        let queue = Queue::start("test", Mutex::new(Gate { open, written })).unwrap();
        let of = |n: usize| format!("{n:01000}\n").into_bytes();
        let longest = (0..2 * MOST_LINES).map(|n| {
            let start = Instant::now();
            queue.push(&of(n));
            start.elapsed()
        });
        assert!(longest.max().unwrap() < Duration::from_secs(1));
        assert!(!queue.flush(Duration::from_millis(20)), "it stands still");
        drop(release);
        assert!(queue.flush(Duration::from_secs(30)));
        let written: Vec<_> = lines.try_iter().collect();
        assert!(written.len() >= MOST_BYTES / 1001 / 2, "{}", written.len());
        assert!(written.len() <= MOST_LINES + 1, "the queue is bounded: {}", written.len());
        assert!(written.iter().enumerate().all(|(n, line)| *line == of(n)));
        assert_eq!(queue.bytes.load(Relaxed), 0);
    }
}
