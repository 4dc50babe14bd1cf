//! What went upstream, read again by programs that others wrote: they must find
//! the same requests in it (RELIABILITY G-112).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{raw::headers, recorder::Delivery};

/// The server of Python's own library, which splits heads by its parser of mail.
/// Of bodies it knows nothing; here they are read as RFC 9112 has it.
const PYTHON: &str = r#"
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        codings = self.headers.get_all("Transfer-Encoding", [])
        lengths = self.headers.get_all("Content-Length", [])
        body = b""
        if len(codings) + len(lengths) > 1 or codings not in ([], ["chunked"]):
            return self.send_error(400)
        if lengths:
            body = self.rfile.read(int(lengths[0]))
        while codings:
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size)
            if self.rfile.readline() != b"\r\n":
                return self.send_error(400)
            if not size:
                break
        self.send_response(200)
        self.send_header("X-Read", f"{self.command} {self.path} {body.hex()}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// A server that says of each request how it read it.
pub struct Reader {
    pub name: &'static str,
    address: SocketAddr,
    child: Option<Child>,
}

impl Reader {
    /// All that there are on this machine.
    pub async fn all() -> Vec<Self> {
        let mut all = vec![Self::hyper().await];
        all.extend(Self::python());
        all
    }

    async fn hyper() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut server = http1::Builder::new();
                // It is told everything at once, and that there is no more.
                server.half_close(true).pipeline_flush(true);
                let serving = server.serve_connection(TokioIo::new(socket), service_fn(read));
                tokio::spawn(async move { drop(serving.await) });
            }
        });
        Self { name: "hyper", address, child: None }
    }

    fn python() -> Option<Self> {
        let command = Command::new("python3")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = command else {
            eprintln!("No python3: only hyper reads again what went upstream");
            return None;
        };
        child.stdin.take().unwrap().write_all(PYTHON.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = (Ipv4Addr::LOCALHOST, line.trim().parse().unwrap()).into();
        Some(Self { name: "Python", address, child: Some(child) })
    }

    /// The requests that it finds in what came on one connection.
    pub async fn read(&self, wire: &[u8]) -> Vec<String> {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(wire).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answers = String::new();
        socket.read_to_string(&mut answers).await.unwrap();
        // Of an answer that is none of ours, its status line.
        let heads = answers.split_terminator("\r\n\r\n");
        let of = |head: &str| {
            let ours = headers(head, "x-read").next();
            ours.or(head.lines().next()).unwrap_or_default().to_owned()
        };
        heads.map(of).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = (child.kill(), child.wait());
        }
    }
}

/// How a reader names a request.
pub fn shown(delivery: &Delivery) -> String {
    let line = delivery.request_line();
    let asked = line.strip_suffix(" HTTP/1.1").unwrap_or(line);
    format!("{asked} {}", hex::encode(&delivery.body)).trim_end().to_owned()
}

async fn read(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let read = format!("{} {} {}", parts.method, parts.uri, hex::encode(body));
    let mut answer = Response::new(Empty::new());
    answer.headers_mut().insert("x-read", read.trim_end().parse().unwrap());
    Ok(answer)
}
