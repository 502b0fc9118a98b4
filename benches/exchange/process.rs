//! Owns the processes of a run and what the kernel accounts to them, children included.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Ticks of `utime` and `stime` in a second: fixed by Linux's interface to user space.
const TICKS: f64 = 100.0;
/// How long a program may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with this value.
pub struct Process(Child);

impl Process {
    /// Starts `command` and reads `from` its output until `ready` finds what it waits for.
    pub fn start<T>(
        command: &mut Command,
        from: Output,
        ready: impl Fn(&str) -> Option<T>,
    ) -> (Self, T) {
        command.stdin(Stdio::null());
        match from {
            Output::Stdout => command.stdout(Stdio::piped()),
            Output::Stderr => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().unwrap();
        let stream: Box<dyn Read + Send> = match from {
            Output::Stdout => Box::new(child.stdout.take().unwrap()),
            Output::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let process = Self(child);
        let mut lines = BufReader::new(stream).lines();
        let mut seen = String::new();
        let found = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("{command:?} ended before it was ready:\n{seen}");
            };
            if let Some(found) = ready(&line) {
                break found;
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        // A full pipe would stop the process.
        std::thread::spawn(move || lines.for_each(drop));
        (process, found)
    }

    /// Starts a command that says nothing.
    pub fn silent(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Starts a command that prints to the file `output`, and waits until it listens at `address`. What
    /// keeps it from that is told.
    pub fn listening(
        command: &mut Command,
        address: SocketAddr,
        output: &Path,
    ) -> Result<Self, String> {
        let program = command.get_program().display().to_string();
        let file = File::create(output).unwrap();
        command.stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn();
        let mut process = Self(child.map_err(|error| format!("{program}: {error}"))?);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = process.0.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let text = std::fs::read_to_string(output).unwrap_or_default();
                let last = text.lines().last().unwrap_or_default();
                return Err(format!("{program} does not listen: {last}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Processor seconds so far, user and system.
    pub fn cpu(&self) -> f64 {
        self.sum(|pid| {
            let stat = read(pid, "stat");
            // The name before the last `)` may hold spaces.
            let fields: Vec<&str> = stat
                .rsplit(')')
                .next()
                .unwrap()
                .split_whitespace()
                .collect();
            let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
            (ticks(11) + ticks(12)) / TICKS
        })
    }

    /// Resident memory in KiB: now, or `VmHWM` at its highest.
    pub fn memory(&self, field: &str) -> f64 {
        self.sum(|pid| {
            let status = read(pid, "status");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .unwrap();
            line.trim_matches([':', ' ', '\t', 'k', 'B'])
                .parse()
                .unwrap()
        })
    }

    fn sum(&self, figure: impl Fn(u32) -> f64) -> f64 {
        family(self.0.id()).into_iter().map(figure).sum()
    }
}

/// A process, its children, and theirs: Squid's workers have helpers.
fn family(id: u32) -> Vec<u32> {
    let children = read(id, &format!("task/{id}/children"));
    let children = children
        .split_whitespace()
        .flat_map(|child| family(child.parse().unwrap()));
    std::iter::once(id).chain(children).collect()
}

/// Where nobody listens, for programs that cannot be asked which port they got.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The first line of what a program prints, or nothing if there is none.
pub fn said(program: &Path, arg: &str) -> String {
    let output = Command::new(program).arg(arg).output();
    let text = output.map_or(Vec::new(), |o| [o.stdout, o.stderr].concat());
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Which stream says that a process is ready.
#[derive(Clone, Copy)]
pub enum Output {
    Stdout,
    Stderr,
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx must end by itself, or its workers stay.
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).ok();
        self.0.wait().ok();
    }
}

fn read(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}
