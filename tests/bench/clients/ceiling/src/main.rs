//! No producer, but the measure of one: Produce requests made before the clock starts, written to one connection,
//! five in flight. Not idempotent (a ready-made request cannot carry a sequence); one leader for all partitions.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use bench_common::{Error, Job, Pace, Stopwatch, Tally, WARM_UP};
use bytes::{Bytes, BytesMut};
use klamm_wire::batch::NO_PRODUCER;
use klamm_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_wire::messages::{ProduceRequest, TopicName};
use klamm_wire::{BatchBuilder, Compression, Frame, Request, StrBytes, codec};

const IN_FLIGHT: usize = 5;
/// Produce v9: names of topics, flexible.
const PRODUCE: i16 = 9;
/// `max.request.size`, Kafka's default; a request holds at least one batch.
const REQUEST_BYTES: usize = 1 << 20;
/// Where the correlation id is in a request: behind length, api key and version.
const CORRELATION: std::ops::Range<usize> = 8..12;

fn main() -> Result<(), Error> {
    let mut job = Job::from_args()?;
    let paced = job.rate;
    if paced.is_some() {
        job.batch_size = 0; // one record each
    }
    let mut wire = Wire::connect(&job.bootstrap)?;
    let all = plan(&job, job.records)?;
    refuse_failed(&wire.flood(plan(&job, WARM_UP)?)?)?;
    let watch = Stopwatch::start("-")?;
    let tally = match paced {
        None => wire.flood(all)?,
        Some(rate) => wire.pace(&all, rate)?,
    };
    watch.finish(job.records, tally)
}

/// Requests for exactly so many records.
struct Plan {
    /// Sent in turn.
    cycle: Vec<Vec<u8>>,
    /// How many of the cycle's requests go out in all.
    from_cycle: usize,
    /// The rest.
    last: Vec<Vec<u8>>,
}

fn plan(job: &Job, records: usize) -> Result<Plan, Error> {
    let mut maker = Maker { job, next: 0, partition: 0, batches: 1 };
    if job.rate.is_none() {
        maker.batches = (REQUEST_BYTES / maker.batch(records)?.0.len()).clamp(1, job.partitions as usize);
    }
    let (first, per_request) = maker.request(records)?;
    let mut cycle = vec![first];
    // Until it comes back to the first partition. All hold equally many records: the values have one size.
    while maker.partition != 0 && cycle.len() < records / per_request {
        cycle.push(maker.request(per_request)?.0);
    }
    let (mut left, mut last) = (records % per_request, Vec::new());
    while left > 0 {
        let (request, count) = maker.request(left)?;
        last.push(request);
        left -= count;
    }
    Ok(Plan { cycle, from_cycle: records / per_request, last })
}

struct Maker<'a> {
    job: &'a Job,
    next: usize,
    partition: i32,
    /// Batches in a request.
    batches: usize,
}

impl Maker<'_> {
    /// A request of at most `limit` records, with batches for the partitions in turn.
    fn request(&mut self, limit: usize) -> Result<(Vec<u8>, usize), Error> {
        let (mut count, mut partitions) = (0, Vec::new());
        while count < limit && partitions.len() < self.batches {
            let (batch, records) = self.batch(limit - count)?;
            count += records;
            partitions
                .push(PartitionProduceData::default().with_index(self.partition).with_records(Some(batch)));
            self.partition = (self.partition + 1) % self.job.partitions;
        }
        let name = TopicName(StrBytes::from_string(self.job.topic.to_string()));
        let topic = TopicProduceData::default().with_name(name).with_partition_data(partitions);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        let body = codec::encode_request(PRODUCE, &request)?.into_contiguous();
        let header = codec::encode_request_header(ProduceRequest::KEY, PRODUCE, 0, Some("ceiling"));
        let length = u32::try_from(header.len() + body.len())?.to_be_bytes();
        Ok(([&length[..], &header[..], &body[..]].concat(), count))
    }

    fn batch(&mut self, limit: usize) -> Result<(Bytes, usize), Error> {
        let none: &[(&str, Option<&[u8]>)] = &[];
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
        let mut batch = BatchBuilder::new(BytesMut::with_capacity(self.job.batch_size));
        let most = BatchBuilder::upper_bound(None, Some(self.job.value(0).len()), none);
        while batch.is_empty()
            || ((batch.count() as usize) < limit && batch.len_bytes() + most <= self.job.batch_size)
        {
            batch.append(now, None, Some(self.job.value(self.next)), none);
            self.next += 1;
        }
        let compression: Compression = self.job.compression.parse()?;
        let sealed = batch.seal(compression, None)?;
        let count = sealed.count() as usize;
        Ok(([&sealed.header(NO_PRODUCER)[..], sealed.records()].concat().into(), count))
    }
}

struct Wire {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Wire {
    fn connect(bootstrap: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(bootstrap)?;
        stream.set_nodelay(true)?;
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream })
    }

    fn flood(&mut self, mut plan: Plan) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let cycle = plan.cycle.len();
        let requests = plan.from_cycle + plan.last.len();
        for i in 0..requests {
            if i >= IN_FLIGHT {
                tally.count(answer(&mut self.answers));
            }
            let request = if i < plan.from_cycle {
                &mut plan.cycle[i % cycle]
            } else {
                &mut plan.last[i - plan.from_cycle]
            };
            request[CORRELATION].copy_from_slice(&(i as i32).to_be_bytes());
            self.stream.write_all(request)?;
        }
        for _ in 0..requests.min(IN_FLIGHT) {
            tally.count(answer(&mut self.answers));
        }
        Ok(tally)
    }

    /// One thread writes, one reads.
    fn pace(mut self, plan: &Plan, rate: usize) -> Result<Tally, Error> {
        let (sent, times) = mpsc::channel::<Instant>();
        let mut answers = self.answers;
        let reading = thread::spawn(move || {
            let mut tally = Tally::default();
            for since in times {
                let outcome = answer(&mut answers);
                tally.count_since(since, outcome);
            }
            tally
        });
        let mut pace = Pace::new(rate);
        for request in plan.cycle.iter().cycle().take(plan.from_cycle) {
            pace.wait();
            sent.send(Instant::now())?;
            self.stream.write_all(request)?;
        }
        drop(sent);
        Ok(reading.join().map_err(|_| "the reader panicked")?)
    }
}

fn refuse_failed(tally: &Tally) -> Result<(), Error> {
    tally.failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Reads one answer; an error code of any partition is an error.
fn answer(stream: &mut impl Read) -> Result<(), Error> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body)?;
    let mut body = Bytes::from(body);
    codec::decode_response_header(ProduceRequest::KEY, PRODUCE, &mut body)?;
    let response = codec::decode_response::<ProduceRequest>(Frame::new(ProduceRequest::KEY, PRODUCE, body))?;
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.find(|partition| partition.error_code != 0) {
        Some(refused) => Err(format!("error code {}", refused.error_code).into()),
        None => Ok(()),
    }
}
