//! Which network addresses an upstream may have.
//!
//! Asked of every address that is about to be connected to, after names were
//! resolved: what a name meant a moment ago says nothing about what it means
//! now (RELIABILITY G-40, G-119).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services of clouds that lie outside of the link-local networks:
/// Alibaba, Oracle, Azure; AWS and Google over IPv6.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether an address may be connected to. `named`: it is what a name stands
/// for; an address that the operator wrote down himself is his will, if it is a
/// host's at all. `private_allowed`: names may stand for hosts within.
pub fn is_allowed(address: IpAddr, named: bool, private_allowed: bool) -> bool {
    let address = effective(address);
    !is_forbidden(address) && (!named || private_allowed || !is_private(address))
}

/// The address that is reached in the end: IPv6 has several ways to write down
/// an IPv4 address, and a kernel or a translator on the way follows them.
fn effective(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let bits = v6.to_bits();
    let v4 = |bits: u128| {
        let low = u32::try_from(bits & 0xffff_ffff).expect("32 bits");
        IpAddr::V4(Ipv4Addr::from_bits(low))
    };
    match v6.segments() {
        // Mapped, also in its translated form (RFC 2765), and compatible.
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] if bits > 1 => v4(bits),
        // NAT64, the well-known prefix and the one for local use.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => v4(bits),
        // 6to4.
        [0x2002, ..] => v4(bits >> 80),
        // Teredo: the host's own address, every bit turned.
        [0x2001, 0, ..] => v4(!bits),
        _ => address,
    }
}

/// No server's, or one that tells secrets to whoever asks from this machine.
fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || METADATA_V6.contains(&v6)
        }
    }
}

/// Not of the public network: this machine, its neighbours, or nobody.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_documentation()
                // Shared by a carrier's customers, and by overlay networks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b))
                || a >= 240
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unique_local()
                // Site-local, long given up and still routed by some.
                || v6.segments()[0] & 0xffc0 == 0xfec0
                || matches!(v6.segments(), [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Is {
        Public,
        Private,
        Never,
    }
    use Is::{Never, Private, Public};

    const TABLE: [(&str, Is); 88] = [
        ("1.1.1.1", Public),
        ("8.8.8.8", Public),
        ("93.184.216.34", Public),
        ("100.63.255.255", Public),
        ("100.128.0.1", Public),
        ("169.253.255.255", Public),
        ("169.255.0.1", Public),
        ("172.15.255.255", Public),
        ("172.32.0.1", Public),
        ("192.167.255.255", Public),
        ("192.169.0.1", Public),
        ("198.17.255.255", Public),
        ("198.20.0.1", Public),
        ("223.255.255.255", Public),
        ("2606:4700:4700::1111", Public),
        ("2a00:1450::1", Public),
        ("::ffff:1.1.1.1", Public),
        ("64:ff9b::1.1.1.1", Public),
        ("2002:101:101::1", Public),
        ("127.0.0.1", Private),
        ("127.0.0.53", Private),
        ("127.255.255.254", Private),
        ("10.0.0.1", Private),
        ("10.255.255.255", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.0.1", Private),
        ("192.168.255.255", Private),
        ("100.64.0.1", Private),
        ("100.127.255.254", Private),
        ("192.0.0.1", Private),
        ("192.0.2.1", Private),
        ("198.18.0.1", Private),
        ("198.19.255.255", Private),
        ("198.51.100.7", Private),
        ("203.0.113.7", Private),
        ("240.0.0.1", Private),
        ("255.255.255.254", Private),
        ("::1", Private),
        ("fc00::1", Private),
        ("fd12:3456:789a::1", Private),
        ("fdff:ffff::1", Private),
        ("fec0::1", Private),
        ("feff::1", Private),
        ("2001:db8::1", Private),
        ("100::1", Private),
        ("::ffff:127.0.0.1", Private),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:c0a8:1", Private),
        ("::ffff:0:10.0.0.1", Private),
        ("::127.0.0.1", Private),
        ("::10.0.0.1", Private),
        ("64:ff9b::127.0.0.1", Private),
        ("64:ff9b::c0a8:101", Private),
        ("64:ff9b:1::10.0.0.1", Private),
        ("2002:7f00:1::", Private),
        ("2002:c0a8:101::1", Private),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", Private),
        ("0.0.0.0", Never),
        ("0.0.0.1", Never),
        ("0.255.255.255", Never),
        ("169.254.0.1", Never),
        ("169.254.169.254", Never),
        ("169.254.170.2", Never),
        ("169.254.255.255", Never),
        ("100.100.100.200", Never),
        ("192.0.0.192", Never),
        ("168.63.129.16", Never),
        ("224.0.0.1", Never),
        ("239.255.255.255", Never),
        ("255.255.255.255", Never),
        ("::", Never),
        ("fe80::1", Never),
        ("fe80::a9fe:a9fe", Never),
        ("febf:ffff::1", Never),
        ("ff02::1", Never),
        ("ff0e::1", Never),
        ("fd00:ec2::254", Never),
        ("fd20:ce::254", Never),
        ("::ffff:169.254.169.254", Never),
        ("::ffff:a9fe:a9fe", Never),
        ("::ffff:0.0.0.0", Never),
        ("::ffff:0:169.254.169.254", Never),
        ("::169.254.169.254", Never),
        ("64:ff9b::169.254.169.254", Never),
        ("64:ff9b:1::a9fe:a9fe", Never),
        ("2002:a9fe:a9fe::1", Never),
        ("2001:0:4136:e378:8000:63bf:5601:5601", Never),
    ];

    #[test]
    fn every_spelling_of_an_address_is_judged_by_where_it_leads() {
        for (text, is) in TABLE {
            let address: IpAddr = text.parse().unwrap();
            let judged = [
                is_allowed(address, false, false),
                is_allowed(address, true, true),
                is_allowed(address, true, false),
            ];
            let expected = match is {
                Public => [true, true, true],
                Private => [true, true, false],
                Never => [false, false, false],
            };
            assert_eq!(judged, expected, "{text}");
        }
    }
}
