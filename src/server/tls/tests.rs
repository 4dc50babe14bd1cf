//! What is read, and what is refused.

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files(folder: &TempDir) -> TlsFiles {
    TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") }
}

#[test]
fn only_a_certificate_with_its_own_key_is_used() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    let ((cert, key), (other_cert, other_key)) = (pair("a.example"), pair("b.example"));
    let chain = format!("a comment\n{cert}{other_cert}");
    for (cert, key, expected) in [
        (&*cert, &*key, None),
        (&chain, &key, None),
        (&cert, &other_key, Some("the key of the certificate")),
        ("", &key, Some("one or more certificates")),
        ("nonsense", &key, Some("one or more certificates")),
        (&cert, "", Some("a private key")),
        (&cert, &cert, Some("a private key")),
    ] {
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        let said = check(&files).err().map(|error| error.to_string());
        match (said, expected) {
            (None, None) => {}
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{said}"),
            (said, expected) => panic!("{said:?} instead of {expected:?}"),
        }
    }
    std::fs::remove_file(&files.key).unwrap();
    assert!(matches!(check(&files), Err(PairError::NoKey | PairError::KeyFile(_))));
}

/// Tools replace the two files one after the other.
#[test]
fn files_are_read_once_they_have_stayed_for_a_look() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    let put = |(cert, key): &(String, String)| {
        std::fs::write(folder.path().join("new"), cert).unwrap();
        std::fs::rename(folder.path().join("new"), &files.cert).unwrap();
        std::fs::write(folder.path().join("new"), key).unwrap();
        std::fs::rename(folder.path().join("new"), &files.key).unwrap();
    };
    put(&pair("a.example"));
    let tls = Tls::load(&files).unwrap();
    let first = tls.config.load_full();
    let seen = tls.look(None);
    assert_eq!(tls.look(Some(seen)), seen);
    assert!(Arc::ptr_eq(&first, &tls.config.load_full()), "nothing has changed");

    put(&pair("b.example"));
    let changed = tls.look(Some(seen));
    assert_ne!(changed, seen);
    assert!(Arc::ptr_eq(&first, &tls.config.load_full()), "it may not be whole yet");
    tls.look(Some(changed));
    let second = tls.config.load_full();
    assert!(!Arc::ptr_eq(&first, &second));

    // What cannot be used is tried once, and then again when it has changed.
    std::fs::write(&files.key, "nonsense").unwrap();
    let bad = tls.look(Some(changed));
    tls.look(Some(bad));
    assert!(Arc::ptr_eq(&second, &tls.config.load_full()));
    put(&pair("c.example"));
    let good = tls.look(Some(bad));
    tls.look(Some(good));
    assert!(!Arc::ptr_eq(&second, &tls.config.load_full()));
}
