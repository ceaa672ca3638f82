//! TeraSort on this engine: `gen`, `sort` and `validate`, on plain files. See `sched/shuffle/benches/RESULTS.md`.
//!
//! Records are 100 bytes with a key of 10. A record is a function of its number, so parts are made in parallel and the
//! sum of all records' checksums is known without keeping them. The last byte is a newline and no other byte is one,
//! so that `LC_ALL=C sort` sorts the same file.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use sched_shuffle::{
    Control, Durability, Format, InputFile, InstanceId, Key, Limits, MapOutput, MapTask, PartitionId,
    Partitioner, RecordSpec, ReduceTask, SampleTask, map, reduce, sample, splits,
};

const RECORD_BYTES: usize = 100;
const SPEC: RecordSpec =
    RecordSpec { format: Format::Fixed(RECORD_BYTES as u32), key: Key::Bytes { start: 0, len: 10 } };
const USAGE: &str = "terasort gen FILE RECORDS | sort IN OUT_DIR SCRATCH_DIR [MEMORY_MIB [WORKERS [PARTITIONS [SPLIT_MIB]]]] | validate OUT_DIR RECORDS";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["gen", file, records] => generate(Path::new(file), records.parse()?),
        ["sort", input, out, scratch, ref rest @ ..] => {
            let number = |at: usize, default: usize| rest.get(at).map_or(Ok(default), |text| text.parse());
            let job = Job {
                input: input.into(),
                out: out.into(),
                scratch: scratch.into(),
                memory_bytes: number(0, 1024)? << 20,
                workers: number(1, 2)?.max(1),
                partitions: number(2, 4)?.max(1),
                split_bytes: (number(3, 256)? as u64) << 20,
            };
            job.run()
        }
        ["validate", out, records] => validate(Path::new(out), records.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// SplitMix64: a good mix of a counter, so that record N needs no other record.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn record(number: u64) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    for (i, eight) in record.chunks_mut(8).enumerate() {
        let word = mix(number * 13 + i as u64).to_le_bytes();
        eight.copy_from_slice(&word[..eight.len()]);
    }
    for byte in &mut record[..RECORD_BYTES - 1] {
        *byte ^= u8::from(*byte == b'\n');
    }
    record[RECORD_BYTES - 1] = b'\n';
    record
}

fn checksum(record: &[u8]) -> u64 {
    let words = record.chunks(8).map(|part| part.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)));
    words.fold(0, |sum, word| mix(sum ^ word))
}

fn generate(file: &Path, records: u64) -> Result<(), Failure> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create_new(file)?);
    for number in 0..records {
        file.write_all(&record(number))?;
    }
    file.flush()?;
    Ok(())
}

struct Job {
    input: PathBuf,
    out: PathBuf,
    scratch: PathBuf,
    /// Of all workers together.
    memory_bytes: usize,
    workers: usize,
    partitions: usize,
    split_bytes: u64,
}

impl Job {
    fn run(&self) -> Result<(), Failure> {
        let cancel = AtomicBool::new(false);
        let begun = Instant::now();
        let say = |what: &str| eprintln!("{:7.2} s  {what}", begun.elapsed().as_secs_f64());
        let input = InputFile { path: self.input.clone(), len_bytes: std::fs::metadata(&self.input)?.len() };
        let limits = Limits { memory_bytes: self.memory_bytes / self.workers, ..Limits::default() };
        let task = SampleTask {
            inputs: vec![input.clone()],
            input_format: SPEC.format,
            spec: SPEC,
            mapper: None,
            partitions: self.partitions as u32,
            samples: 10_000,
            limits,
        };
        let boundaries = sample(&task, &Control::new(&cancel, &|_, _| {}))?;
        say("sampled");

        let splits = splits(&[input], self.split_bytes, SPEC.format)?;
        let intermediate = |i: usize| self.scratch.join(format!("map-{i}"));
        self.each(splits.len(), &|i| {
            let task = MapTask {
                splits: vec![splits[i].clone()],
                input_format: SPEC.format,
                spec: SPEC,
                mapper: None,
                combiner: None,
                partitioner: Partitioner::Range(boundaries.clone()),
                output: intermediate(i),
                limits,
            };
            map(&task, &Control::new(&cancel, &|_, _| {}))?;
            Ok(())
        })?;
        say("mapped");

        let inputs: Vec<_> = (0..splits.len())
            .map(|i| MapOutput { instance: InstanceId(i as u32), path: intermediate(i) })
            .collect();
        self.each(self.partitions, &|p| {
            let task = ReduceTask {
                partition: PartitionId(p as u32),
                inputs: inputs.clone(),
                spec: SPEC,
                reducer: None,
                output: self.out.join(format!("part-{p:05}")),
                scratch_prefix: self.scratch.join(format!("reduce-{p}")),
                limits,
                durability: Durability::Unsynced,
            };
            reduce(&task, &Control::new(&cancel, &|_, _| {}))?;
            Ok(())
        })?;
        say("reduced");
        for input in &inputs {
            std::fs::remove_file(&input.path)?;
        }
        say("cleaned up");
        Ok(())
    }

    /// Runs instances 0..count, `workers` at a time.
    fn each(&self, count: usize, run: &(dyn Fn(usize) -> Result<(), Failure> + Sync)) -> Result<(), Failure> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return Ok(());
                    }
                    run(i)?;
                }
            };
            let workers: Vec<_> = (0..self.workers).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())))
        })
    }
}

fn validate(out: &Path, records: u64) -> Result<(), Failure> {
    let mut parts: Vec<_> =
        std::fs::read_dir(out)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    parts.sort();
    let (mut count, mut sum, mut last) = (0_u64, 0_u64, [0; 10]);
    let mut block = vec![0; RECORD_BYTES * 10_000];
    for part in parts {
        let mut file = File::open(&part)?;
        loop {
            let n = (&mut file).take(block.len() as u64).read(&mut block)?;
            if n == 0 {
                break;
            }
            let short = n % RECORD_BYTES;
            let n = if short == 0 { n } else { n + RECORD_BYTES - short };
            if short != 0 {
                file.read_exact(&mut block[n - RECORD_BYTES + short..n])?;
            }
            for record in block[..n].chunks_exact(RECORD_BYTES) {
                if record[..10] < last[..] {
                    return Err(format!("record {count}, in {}, is out of order", part.display()).into());
                }
                last.copy_from_slice(&record[..10]);
                sum = sum.wrapping_add(checksum(record));
                count += 1;
            }
        }
    }
    let wanted = (0..records).fold(0_u64, |sum, number| sum.wrapping_add(checksum(&record(number))));
    if (count, sum) != (records, wanted) {
        return Err(format!("{count} records with sum {sum:x}, and not {records} with sum {wanted:x}").into());
    }
    println!("{count} records in order, sum {sum:x}");
    Ok(())
}
