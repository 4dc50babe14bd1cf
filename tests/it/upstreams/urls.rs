//! What may stand as a target's URL in the configuration (G-119).

use tollgate::config::{Config, Sources};

/// Refused before anything is connected to.
const REFUSED: [&str; 66] = [
    // Never a server's address, in any spelling.
    "http://0.0.0.0",
    "http://0.0.0.0:8080",
    "http://0.1.2.3",
    "http://169.254.169.254",
    "http://169.254.169.254:80",
    "https://169.254.169.254",
    "http://169.254.170.2",
    "http://169.254.0.1",
    "http://100.100.100.200",
    "http://168.63.129.16",
    "http://192.0.0.192",
    "http://224.0.0.1",
    "http://239.1.2.3",
    "http://255.255.255.255",
    "http://[::]",
    "http://[::]:8080",
    "http://[fe80::1]",
    "http://[fe80::a9fe:a9fe]",
    "http://[ff02::1]",
    "http://[fd00:ec2::254]",
    "http://[fd20:ce::254]",
    "http://[::ffff:169.254.169.254]",
    "http://[::ffff:a9fe:a9fe]",
    "http://[::ffff:0.0.0.0]",
    "http://[::169.254.169.254]",
    "http://[::ffff:0:169.254.169.254]",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]",
    "http://[64:ff9b::169.254.169.254]",
    "http://[64:ff9b:1::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::]",
    // Spellings of addresses that only some programs understand.
    "http://2852039166",
    "http://0xa9fea9fe",
    "http://0xA9FEA9FE",
    "http://0251.0376.0251.0376",
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://169.254.43518",
    "http://169.16689662",
    "http://127.1",
    "http://2130706433",
    "http://0x7f.1",
    "http://0177.0.0.1",
    "http://127.0.0.1.2",
    "http://1.2.3.999",
    "http://10.0.0.1.",
    "http://0",
    "http://0x",
    // Not a URL of scheme, host and port.
    "file:///etc/passwd",
    "gopher://10.0.0.1",
    "ftp://10.0.0.1",
    "ws://10.0.0.1",
    "unix:/run/app.sock",
    "//10.0.0.1",
    "10.0.0.1:80",
    "http:/10.0.0.1",
    "http://",
    "http://user@10.0.0.1",
    "http://user:secret@10.0.0.1",
    "http://10.0.0.1@169.254.169.254",
    "http://10.0.0.1/path",
    "http://10.0.0.1?query",
    "http://10.0.0.1#@169.254.169.254",
    "http://10.0.0.1\\@169.254.169.254",
    "http://10.0.0.1:0",
    "http://10.0.0.1:65536",
    "http://[fe80::1%25eth0]",
    "http://１２７.0.0.1",
];

/// The operator's will, or names: those are judged when they are connected to.
const TAKEN: [&str; 22] = [
    "http://127.0.0.1",
    "http://127.0.0.1:8188",
    "http://10.0.0.1",
    "http://192.168.1.10:3000",
    "http://172.16.0.1",
    "http://100.64.0.1",
    "http://[::1]:8080",
    "http://[fd12:3456::1]",
    "http://[::ffff:10.0.0.1]",
    "https://93.184.216.34",
    "https://[2606:4700::1111]",
    "http://localhost:8080",
    "http://backend",
    "http://backend:8080",
    "http://my_service:80",
    "https://app.example.com",
    "https://APP.example.com.",
    "http://metadata.google.internal",
    "http://169.254.169.254.nip.io",
    "http://xn--bcher-kva.example",
    "http://a1.b2.c3",
    "http://1.2.3.4a",
];

fn load(url: &str) -> Result<Config, String> {
    let url = toml::Value::String(url.to_owned());
    let file = format!("[[upstreams]]\nname='app'\nmount='/app'\nurl={url}\n");
    let sources = Sources { file: Some(file), ..Sources::default() };
    Config::load(&sources).map_err(|error| error.to_string())
}

#[test]
fn a_target_is_a_server_that_may_be_connected_to() {
    for url in REFUSED {
        let error = load(url).err().unwrap_or_else(|| panic!("{url} is taken"));
        assert!(
            error.contains("upstreams.app.url: ") && error.contains("expected"),
            "{url}: {error}"
        );
        // What was written is not repeated: it may be a password.
        let host = url.trim_start_matches("http://");
        assert!(host.len() < 6 || !error.contains(host), "{url}: {error}");
    }
    for url in TAKEN {
        let config = load(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(config.upstreams[0].targets.len(), 1, "{url}");
    }
}

#[test]
fn a_target_stands_once() {
    let error = load("http://10.0.0.1,http://10.0.0.2,http://10.0.0.1").unwrap_err();
    assert!(error.contains("upstreams.app.targets: expected each once"), "{error}");
}
