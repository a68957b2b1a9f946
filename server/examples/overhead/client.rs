//! The clients, in a process of their own: blocking sockets, a thread per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests at a fixed rate.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: String,
    pub(crate) per_second: u32,
    pub(crate) seconds: u32,
    pub(crate) connections: u32,
}

impl Load {
    /// Microseconds from a request's sending to its answer's last byte, sorted. A request that could not leave in time, since
    /// its connection's last one was not back, counts from when it should have left.
    pub(crate) async fn run(&self) -> Vec<f64> {
        let Self { address, method, path, body, per_second, seconds, connections } = self;
        let arguments = [
            "rate".to_owned(),
            address.to_string(),
            (*method).to_owned(),
            (*path).to_owned(),
            body.clone(),
            per_second.to_string(),
            seconds.to_string(),
            connections.to_string(),
        ];
        let mut times: Vec<f64> =
            child(arguments).await.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(times.len(), (per_second * seconds) as usize, "every request was answered");
        times.sort_by(f64::total_cmp);
        times
    }
}

/// Opens streams at once and reads them to their ends; gives the number of their events.
pub(crate) async fn streams(address: SocketAddr, path: &str, body: &str, n: usize) -> usize {
    let arguments =
        ["streams".to_owned(), address.to_string(), path.to_owned(), body.to_owned(), n.to_string()];
    child(arguments).await.trim().parse().expect("a number")
}

/// What this program's client process prints.
async fn child<const N: usize>(arguments: [String; N]) -> String {
    let run = move || {
        let program = std::env::current_exe().expect("a path");
        let mut command = Command::new(program);
        let output =
            command.arg("client").args(arguments).stderr(Stdio::inherit()).output().expect("it runs");
        assert!(output.status.success(), "the client failed");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

/// As the child process.
pub(crate) fn run(arguments: &[&str]) {
    match arguments {
        ["rate", address, method, path, body, per_second, seconds, connections] => {
            let head = request(method, path, body);
            let number = |text: &str| text.parse::<u32>().expect("a number");
            rate(address, &head, number(per_second), number(seconds), number(connections));
        }
        ["streams", address, path, body, n] => {
            let head = request("POST", path, body);
            let open = |_| {
                let (mut connection, head) = (connect(address), head.clone());
                std::thread::spawn(move || count_events(&mut connection, &head))
            };
            let streams: Vec<JoinHandle<usize>> = (0..n.parse().expect("a number")).map(open).collect();
            println!("{}", streams.into_iter().map(|stream| stream.join().expect("no panic")).sum::<usize>());
        }
        other => panic!("unknown: {other:?}"),
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let n = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {n}\r\n\r\n"
    );
    (head + body).into_bytes()
}

fn rate(address: &str, request: &[u8], per_second: u32, seconds: u32, connections: u32) {
    let began = Instant::now() + Duration::from_millis(50);
    let one = |index: u32| {
        let (mut connection, request) = (connect(address), request.to_vec());
        std::thread::spawn(move || {
            let mine = (index..per_second * seconds).step_by(connections as usize);
            let gap = Duration::from_secs(1) / per_second;
            mine.map(|n| timed(&mut connection, &request, began + gap * n)).collect::<Vec<f64>>()
        })
    };
    let threads: Vec<JoinHandle<Vec<f64>>> = (0..connections).map(one).collect();
    for thread in threads {
        for time in thread.join().expect("no panic") {
            println!("{time:.1}");
        }
    }
}

fn timed(connection: &mut TcpStream, request: &[u8], due: Instant) -> f64 {
    let wait = due.saturating_duration_since(Instant::now());
    // What the system oversleeps is not the server's.
    let began = if wait.is_zero() { due } else { sleep(wait) };
    connection.write_all(request).expect("sent");
    read_answer(connection);
    began.elapsed().as_secs_f64() * 1e6
}

#[expect(clippy::disallowed_methods, reason = "requests leave at their times, whatever happens meanwhile")]
fn sleep(time: Duration) -> Instant {
    std::thread::sleep(time);
    Instant::now()
}

/// An answer with a length.
fn read_answer(connection: &mut TcpStream) {
    let mut got = Vec::with_capacity(4096);
    let mut buffer = [0; 1 << 16];
    loop {
        let n = connection.read(&mut buffer).expect("read");
        assert!(n > 0, "the connection ended");
        got.extend_from_slice(&buffer[..n]);
        let Some(end) = got.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&got[..end]);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if got.len() >= end + 4 + length.expect("a length") {
            return;
        }
    }
}

/// Reads a chunked answer to its end.
fn count_events(connection: &mut TcpStream, request: &[u8]) -> usize {
    connection.write_all(request).expect("sent");
    let (mut n_events, mut buffer, mut n_kept) = (0, vec![0; 1 << 16], 0);
    loop {
        let n = connection.read(&mut buffer[n_kept..]).expect("read");
        assert!(n > 0, "the connection ended");
        let got = &buffer[..n_kept + n];
        n_events += got.windows(7).filter(|part| part == b"\ndata: ").count();
        if got.ends_with(b"\r\n0\r\n\r\n") {
            return n_events;
        }
        // The beginning of an event may be the end of this piece.
        let keep = got.len().min(6);
        let from = got.len() - keep;
        buffer.copy_within(from..from + keep, 0);
        n_kept = keep;
    }
}
