//! Where it is looked that a client does not see.

use std::{fs, io::Write as _, net::TcpStream, path::PathBuf, time::Instant};

use super::Planted;
use crate::{
    process::{Captured, PATIENCE},
    support::redis::Server,
};

/// Everything in a folder, at several moments. What is a secret's own file is
/// not looked at.
pub struct Files {
    folder: PathBuf,
    read: Vec<(String, Vec<u8>)>,
}

impl Files {
    pub fn of(folder: PathBuf) -> Self {
        let mut files = Self { folder, read: vec![] };
        files.read();
        assert!(files.read.iter().any(|(name, _)| name.ends_with("-wal")), "no write-ahead log");
        files
    }

    pub fn read(&mut self) {
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                self.read.push((name, fs::read(entry.path()).unwrap()));
            }
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
