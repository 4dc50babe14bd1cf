//! Where it is looked that a client does not see.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Instant,
};

use flate2::read::GzDecoder;

use super::Planted;
use crate::{
    process::{Captured, PATIENCE},
    support::redis::Server,
};

/// Everything in a folder and below it, at several moments; what is packed is
/// unpacked. What is a secret's own file is not looked at.
pub struct Files {
    folder: PathBuf,
    read: Vec<(String, Vec<u8>)>,
}

impl Files {
    pub fn of(folder: &Path) -> Self {
        let mut files = Self { folder: folder.to_owned(), read: vec![] };
        files.read();
        assert!(files.read.iter().any(|(name, _)| name.ends_with("-wal")), "no write-ahead log");
        files
    }

    pub fn read(&mut self) {
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&self.folder).unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.extend((name != "data/secrets").then_some(path));
                    continue;
                }
                // A journal's segment may be gone, and a file be packed just now.
                let Ok(mut bytes) = fs::read(&path) else { continue };
                if path.extension().is_some_and(|end| end == "gz") {
                    let packed = std::mem::take(&mut bytes);
                    _ = GzDecoder::new(&*packed).read_to_end(&mut bytes);
                }
                self.read.push((name, bytes));
            }
        }
    }

    /// Files were read whose names have these in them.
    #[track_caller]
    pub fn expect(&self, parts: &[&str]) {
        let sizes: Vec<_> = self.read.iter().map(|(name, bytes)| (name, bytes.len())).collect();
        for part in parts {
            let there = sizes.iter().any(|(name, size)| name.contains(part) && *size > 0);
            assert!(there, "{part} in {sizes:?}");
        }
    }

    pub fn search(&self, planted: &Planted) -> Vec<String> {
        self.read.iter().flat_map(|(name, bytes)| planted.found_in(name, bytes)).collect()
    }
}

/// Every command that a Redis gets, whatever becomes of what it writes.
pub struct RedisLog(Captured);

impl RedisLog {
    pub fn start(redis: &Server) -> Self {
        let mut stream = TcpStream::connect(redis.address()).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let log = Self(Captured::of(stream));
        let start = Instant::now();
        while !log.0.so_far().starts_with("+OK") {
            assert!(start.elapsed() < PATIENCE, "Redis does not let itself be watched");
            std::thread::yield_now();
        }
        log
    }

    /// All of them until this call.
    pub async fn until_now(&self, redis: &Server) -> String {
        const END: &str = "the end of what is watched";
        redis.command(&["ECHO", END]).await;
        let start = Instant::now();
        loop {
            let text = self.0.so_far();
            if text.contains(END) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "the end is not seen: {text}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// What a Redis writes to its disk, not packed.
pub async fn redis_file(redis: &Server) -> Vec<u8> {
    redis.command(&["CONFIG", "SET", "rdbcompression", "no"]).await;
    redis.command(&["SAVE"]).await;
    let file = redis.file();
    assert!(file.starts_with(b"REDIS"));
    file
}

/// All keys of a Redis with their values.
pub async fn redis_dump(url: &str) -> Vec<u8> {
    const ALL: &str = "
        local all = {}
        local function add(value)
          if type(value) == 'table' then
            for _, part in ipairs(value) do add(part) end
          else
            all[#all + 1] = tostring(value)
          end
        end
        local readers = {
          string = function(key) return redis.call('GET', key) end,
          hash = function(key) return redis.call('HGETALL', key) end,
          list = function(key) return redis.call('LRANGE', key, 0, -1) end,
          set = function(key) return redis.call('SMEMBERS', key) end,
          zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
          stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
        }
        for _, key in ipairs(redis.call('KEYS', '*')) do
          add(key)
          add(readers[redis.call('TYPE', key).ok](key))
        end
        return table.concat(all, '\\n')";

    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("EVAL").arg(ALL).arg(0).query_async(&mut connection).await.unwrap()
}
