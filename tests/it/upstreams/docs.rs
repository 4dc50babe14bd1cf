//! The example of the manual is one.

use std::time::Duration;

use tollgate::config::{Config, HostHeader, Mount, Sources};

#[test]
fn the_example_of_the_manual_can_be_used() {
    let manual = include_str!("../../../docs/upstreams.md");
    let (_, rest) = manual.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    // The files that it names are not here.
    let folder = tempfile::tempdir().unwrap();
    let example = example.replace("/etc/tollgate", folder.path().to_str().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("inner-ca.pem"), ca.pem()).unwrap();
    std::fs::write(folder.path().join("wiki.password"), "a password\n").unwrap();
    let sources = Sources { file: Some(example), ..Sources::default() };
    let config = Config::load(&sources).unwrap_or_else(|error| panic!("{error}"));

    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name).collect();
    assert_eq!(names, ["shop", "wiki", "comfy", "lab"]);
    let shop = &config.upstreams[0];
    assert_eq!((&shop.mount, shop.targets.len()), (&Mount::Root, 2));
    assert_eq!((shop.targets[0].weight, shop.max_connections, shop.max_pending), (3, 200, 100));
    assert_eq!(shop.health.as_ref().unwrap().interval, Duration::from_secs(5));
    assert_eq!(shop.paths.len(), 3);
    let wiki = &config.upstreams[1];
    assert_eq!(wiki.mount, Mount::Host("wiki.example.com".to_owned()));
    assert!(wiki.tls.ca.is_some() && wiki.basic_auth.is_some() && !wiki.private_addresses);
    assert_eq!(wiki.host, HostHeader::Client);
    assert_eq!(config.upstreams[2].mount, Mount::Prefix("/comfy".to_owned()));
}
