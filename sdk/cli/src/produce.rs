//! `klamm produce`: one record for each line of standard input.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use klamm::{Delivery, Producer, Record, RecordMetadata, SendError};
use tokio::io::AsyncReadExt;

use crate::interrupt::Interrupts;
use crate::lines::{Line, Lines};
use crate::properties::{parse_property, usage, with_own};
use crate::tally::Tally;
use crate::{Failure, say};

/// Bytes asked of standard input at a time; a pipe holds as many.
const READ_BYTES: usize = 64 << 10;
/// Records that may wait for their acknowledgement; bounds memory for records that are nearly empty, where
/// `buffer.memory` bounds it for others.
const MOST_OPEN: usize = 1 << 18;
/// `max.request.size` unless it is given.
const DEFAULT_LINE_LIMIT: usize = 1 << 20;

/// Sends each line of standard input as a record.
///
/// A line is what stands before a newline, as bytes of any encoding; a carriage return stays, and the last line may
/// lack its newline. An empty line is an empty value. Memory is bounded (buffer.memory): input is read as fast as the
/// cluster takes it.
///
/// SIGINT and SIGTERM end the reading; what was read is still sent and its acknowledgement awaited. A second one gives
/// up at once.
///
/// Ends with status 0 if every record was acknowledged, 1 if any was not, with their count on standard error, and 2
/// on wrong usage.
#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// Addresses to find the cluster by: HOST:PORT, several separated by commas
    #[arg(short, long, value_name = "BOOTSTRAP")]
    bootstrap: String,
    /// Topic to write to
    #[arg(short, long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    topic: String,
    /// What stands before the first DELIM of a line is the key, what follows the value; without DELIM, the
    /// key is null. \t, \\ and \xHH are understood
    #[arg(short, long, value_name = "DELIM", value_parser = parse_delimiter)]
    key_delimiter: Option<Delimiter>,
    /// Partition to write to, instead of the one that the key or chance chooses
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Sets a property of the producer by its Kafka name, for example acks=1; may be given several times
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
    /// Says nothing as long as nothing goes wrong
    #[arg(short, long)]
    quiet: bool,
}

type Delimiter = Arc<[u8]>;

impl Produce {
    /// Sends what comes on standard input until its end, or until it is interrupted.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let producer = Producer::from_properties(with_own(&self.bootstrap, &self.properties)?);
        let producer = producer.and_then(|builder| builder.build()).map_err(|error| usage(&error))?;
        let interrupts = Interrupts::listen()
            .map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;

        let began = Instant::now();
        let mut sending = Sending::new(&self, producer);
        let work = sending.all(interrupts.clone());
        tokio::select! {
            biased;
            () = given_up(interrupts, self.quiet) => sending.give_up(),
            () = work => {}
        }
        let tally = &sending.tally;
        let trouble = sending.trouble.take();
        if let Some(trouble) = &trouble {
            say(trouble);
        }
        if tally.unacknowledged() > 0 {
            say(tally);
        } else if !self.quiet {
            let seconds = began.elapsed().as_secs_f64();
            say(format_args!("{} records acknowledged in {seconds:.1} s", tally.records));
        }
        let whole = trouble.is_none() && tally.unacknowledged() == 0;
        if whole { Ok(()) } else { Err(Failure::Told) }
    }

    /// Longest line that can be a record.
    fn line_limit(&self) -> usize {
        let given = self.properties.iter().rfind(|(key, _)| key == "max.request.size");
        given.and_then(|(_, value)| value.parse().ok()).unwrap_or(DEFAULT_LINE_LIMIT)
    }
}

/// One run: what was read, what is under way, what became of it.
struct Sending {
    producer: Producer,
    topic: Arc<str>,
    partition: Option<i32>,
    delimiter: Option<Delimiter>,
    lines: Lines,
    line_limit: usize,
    open: VecDeque<Delivery>,
    tally: Tally,
    /// Why not all of the input was read.
    trouble: Option<String>,
}

impl Sending {
    fn new(told: &Produce, producer: Producer) -> Self {
        let line_limit = told.line_limit();
        Self {
            producer,
            topic: told.topic.as_str().into(),
            partition: told.partition,
            delimiter: told.key_delimiter.clone(),
            lines: Lines::new(line_limit),
            line_limit,
            open: VecDeque::new(),
            tally: Tally::default(),
            trouble: None,
        }
    }

    /// Returns when every record that was read is acknowledged or failed.
    async fn all(&mut self, mut interrupts: Interrupts) {
        if let Err(reason) = self.read_all(&mut interrupts).await {
            self.trouble = Some(format!("stopped reading: {reason}"));
        }
        // Lingers no longer; whether all of it was acknowledged, the deliveries tell.
        let _ = self.producer.flush().await;
        while self.settle_oldest().await {}
    }

    /// Sends line after line until the input ends, or an interrupt comes.
    async fn read_all(&mut self, interrupts: &mut Interrupts) -> Result<(), String> {
        let mut input = tokio::io::stdin();
        loop {
            while let Some(line) = self.lines.next_line() {
                self.send(line).await?;
            }
            self.settle_ready();
            let read = tokio::select! {
                biased;
                () = interrupts.first() => break,
                read = input.read_buf(self.lines.read_buffer(READ_BYTES)) => read,
            };
            if read.map_err(|error| format!("standard input: {error}"))? == 0 {
                return match self.lines.last_line() {
                    Some(line) => self.send(line).await,
                    None => Ok(()),
                };
            }
        }
        match self.lines.is_inside_a_line() {
            true => Err("interrupted in the middle of a line, which is not sent".into()),
            false => Ok(()),
        }
    }

    /// Sends one line; an error is one that the next line would meet, too.
    async fn send(&mut self, line: Line) -> Result<(), String> {
        self.tally.records += 1;
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => {
                self.tally.too_long(self.line_limit);
                return Ok(());
            }
        };
        match self.producer.send(self.record(line)).await {
            Ok(delivery) => self.open.push_back(delivery),
            Err(error) => {
                let reason = error.to_string();
                let only_this = matches!(error, SendError::TooLarge { .. });
                self.tally.failed(error);
                return if only_this { Ok(()) } else { Err(reason) };
            }
        }
        if self.open.len() >= MOST_OPEN {
            self.settle_oldest().await;
        }
        Ok(())
    }

    fn record(&self, line: Bytes) -> Record {
        let mut record = Record::new(self.topic.clone());
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        match self.delimiter.as_deref().and_then(|delimiter| split(&line, delimiter)) {
            Some((key, value)) => record.key(key).value(value),
            None => record.value(line),
        }
    }

    /// Waits until the oldest record is acknowledged or failed; `false` if there is none.
    async fn settle_oldest(&mut self) -> bool {
        let Some(delivery) = self.open.front_mut() else { return false };
        // Taken off only then: giving up meanwhile must not forget it.
        let outcome = delivery.await;
        self.settled(outcome);
        true
    }

    /// Takes note of what is known already, from the oldest on.
    fn settle_ready(&mut self) {
        while let Some(outcome) = self.open.front_mut().and_then(known) {
            self.settled(outcome);
        }
    }

    /// Waits for nothing any more.
    fn give_up(&mut self) {
        for mut delivery in std::mem::take(&mut self.open) {
            if let Some(outcome) = known(&mut delivery) {
                self.tally.settled(outcome);
            }
        }
        self.tally.give_up();
    }

    fn settled(&mut self, oldest: Result<RecordMetadata, SendError>) {
        self.open.pop_front();
        self.tally.settled(oldest);
    }
}

/// What became of a record, if that is known.
fn known(delivery: &mut Delivery) -> Option<Result<RecordMetadata, SendError>> {
    match Pin::new(delivery).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// Returns at the second interrupt; says at the first what is waited for.
async fn given_up(mut interrupts: Interrupts, quiet: bool) {
    interrupts.first().await;
    if !quiet {
        say("interrupted: waiting for what was sent; interrupt again to give up");
    }
    interrupts.second().await;
}

/// What stands before and after the first `delimiter`.
fn split(line: &Bytes, delimiter: &[u8]) -> Option<(Bytes, Bytes)> {
    let at = line.windows(delimiter.len()).position(|part| part == delimiter)?;
    Some((line.slice(..at), line.slice(at + delimiter.len()..)))
}

/// Reads `\t`, `\\` and `\xHH`; everything else stands for itself.
fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    let wrong = || format!("{text:?} holds a \\ that begins none of \\t, \\\\ and \\xHH");
    let mut delimiter = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, after) {
            (b'\\', [b't', after @ ..]) => (after, delimiter.push(b'\t')),
            (b'\\', [b'\\', after @ ..]) => (after, delimiter.push(b'\\')),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or_else(wrong);
                (after, delimiter.push((digit(high)? * 16 + digit(low)?) as u8))
            }
            (b'\\', _) => return Err(wrong()),
            (byte, after) => (after, delimiter.push(*byte)),
        };
    }
    match delimiter.contains(&b'\n') {
        true => Err("a line holds no newline, so it cannot be split there".into()),
        false if delimiter.is_empty() => Err("it must not be empty".into()),
        false => Ok(delimiter.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_is_bytes_with_a_few_escapes() {
        let parsed = |text| parse_delimiter(text).map(|delimiter| delimiter.to_vec());
        assert_eq!(parsed(":"), Ok(b":".to_vec()));
        assert_eq!(parsed("=>"), Ok(b"=>".to_vec()));
        assert_eq!(parsed(r"a\t\\\x00\xfFé"), Ok(b"a\t\\\0\xff\xc3\xa9".to_vec()));
        for wrong in ["", "\n", r"\x0a", r"\", r"\q", r"\x1", r"\xgg"] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_is_split_at_the_first_delimiter() {
        let split = |line: &'static str| {
            let parts = split(&Bytes::from(line), b"::");
            parts.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        assert_eq!(split("k::v"), Some((b"k".to_vec(), b"v".to_vec())));
        assert_eq!(split("k::v::w"), Some((b"k".to_vec(), b"v::w".to_vec())));
        assert_eq!(split("::"), Some((vec![], vec![])));
        assert_eq!(split(":"), None);
        assert_eq!(split(""), None);
    }
}
