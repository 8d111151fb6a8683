//! A man in the middle between libpq and its server, who cuts the connection.
//!
//! It is cut where it hurts: when the server has not got a request, or when it has done everything and
//! the answer is on its way.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Nullable, Text};

use crate::postgres::Db;

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server does not get the request.
    Request,
    /// The server did what it was asked to, and the client does not get the answer.
    Answer,
}

/// A proxy for one database. It ends with the process.
pub struct Proxy {
    folder: tempfile::TempDir,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    requests: usize,
    cut: Option<(usize, Cut)>,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl Proxy {
    /// A proxy to the server of a database.
    pub fn new(db: &Db) -> Self {
        let upstream = Upstream::of(&mut db.connect());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join(".s.PGSQL.5432");
        let listener = UnixListener::bind(socket).expect("a socket");
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (plan, upstream) = (Arc::clone(&shared), upstream.clone());
                thread::spawn(move || {
                    // Either side may hang up at any time; then both are hung up.
                    let _ = relay(&mut client?, &mut *upstream.connect()?, &plan);
                    io::Result::Ok(())
                });
            }
        });
        Proxy { folder, plan }
    }

    /// A connection through the proxy.
    pub fn connect(&self, db: &Db) -> PgConnection {
        let url = format!(
            "postgres://postgres@/{}?host={}&port=5432",
            db.name(),
            self.folder.path().display()
        );
        PgConnection::establish(&url).expect("a connection through the proxy")
    }

    /// Counts requests from 1 again, and cuts the connection at the one of this number.
    pub fn plan(&self, cut: Option<(usize, Cut)>) {
        *self.plan.lock().expect("no panic") = Plan { requests: 0, cut };
    }

    /// Requests since the count began: each statement is one, and one more if it is prepared.
    pub fn requests(&self) -> usize {
        self.plan.lock().expect("no panic").requests
    }
}

#[derive(Clone)]
enum Upstream {
    Unix(PathBuf),
    Tcp(String),
}

impl Upstream {
    /// The address of the server that a connection is to.
    fn of(conn: &mut PgConnection) -> Self {
        let text = |sql_text: &str, conn: &mut PgConnection| -> Option<String> {
            diesel::select(sql::<Nullable<Text>>(sql_text))
                .get_result(conn)
                .expect("the server's address")
        };
        let port: Option<i32> = diesel::select(sql::<Nullable<Integer>>("inet_server_port()"))
            .get_result(conn)
            .expect("the server's port");
        if let (Some(host), Some(port)) = (text("host(inet_server_addr())", conn), port) {
            return Upstream::Tcp(format!("{host}:{port}"));
        }
        let folder = text("current_setting('unix_socket_directories')", conn).expect("a folder");
        let port = text("current_setting('port')", conn).expect("a port");
        let folder = folder.split(',').next().unwrap_or_default().trim();
        Upstream::Unix(PathBuf::from(folder).join(format!(".s.PGSQL.{port}")))
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Upstream::Unix(path) => Box::new(UnixStream::connect(path)?),
            Upstream::Tcp(address) => Box::new(TcpStream::connect(address)?),
        })
    }
}

/// Hands on requests and answers in turn, as libpq and its server take turns.
fn relay(client: &mut dyn Stream, server: &mut dyn Stream, plan: &Mutex<Plan>) -> io::Result<()> {
    let mut message = Vec::new();
    read_body(client, &mut message)?;
    server.write_all(&message)?;
    client.write_all(&answer(server)?)?;
    loop {
        message.clear();
        // Until a query or a sync, which are what a server answers.
        while !matches!(read_message(client, &mut message)?, b'Q' | b'S') {}
        let cut = {
            let mut plan = plan.lock().expect("no panic");
            plan.requests += 1;
            let requests = plan.requests;
            plan.cut.filter(|(at, _)| *at == requests)
        };
        if matches!(cut, Some((_, Cut::Request))) {
            return Ok(());
        }
        server.write_all(&message)?;
        let answer = answer(server)?;
        if cut.is_some() {
            return Ok(());
        }
        client.write_all(&answer)?;
    }
}

/// Everything up to "ready for query".
fn answer(server: &mut dyn Stream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    while read_message(server, &mut answer)? != b'Z' {}
    Ok(answer)
}

/// Appends a message and returns its type.
fn read_message(from: &mut dyn Stream, to: &mut Vec<u8>) -> io::Result<u8> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    to.push(kind[0]);
    read_body(from, to)?;
    Ok(kind[0])
}

/// Appends a message without its type: a length that counts itself, and the rest.
fn read_body(from: &mut dyn Stream, to: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    to.extend(length);
    let rest = u64::from(u32::from_be_bytes(length).saturating_sub(4));
    from.take(rest).read_to_end(to)?;
    Ok(())
}
