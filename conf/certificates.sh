#!/bin/sh
# Makes the certificates for mutual TLS between GPU servers and the log aggregation server. It needs OpenSSL 3.
#
#   certificates.sh DIR ca                  once: a CA for nothing but this; DIR/ca/ca.key stays here, offline if possible
#   certificates.sh DIR server NAME...      for the aggregator: the names or IP addresses that GPU servers call it by
#   certificates.sh DIR client NAME         for a GPU server: its host name
#
# DIR/NAME (the first one's) then holds ca.crt, tls.crt and tls.key: copy it to /etc/auditchain/tls on that host. The same
# command again renews the certificate: the key stays, and no other host need change. Fluent Bit reads it at its start. No key is
# ever overwritten; for a new one, remove the directory first. DAYS, default 397, is how long a certificate is valid.
#
# Fluent Bit knows no revocation: a stolen client key is shut out when its certificate expires, or by a new CA.
set -eu
umask 077

die() {
	echo "certificates.sh: $*" >&2
	exit 1
}

usage() {
	sed -n 's/^#   \(certificates.sh .*\)/usage: \1/p' "$0" >&2
	exit 2
}

check_name() {
	case $1 in
	'' | ca | [.-]* | *[!A-Za-z0-9.:-]*) die "\"$1\" is not the name or IP address of a host" ;;
	esac
	[ ${#1} -le 64 ] || die "\"$1\" is longer than a certificate's name can be"
}

# alternative NAME: as subjectAltName has it.
alternative() {
	case $1 in
	*:*) echo "IP:$1" ;;
	*[!0-9.]*) echo "DNS:$1" ;;
	*) echo "IP:$1" ;;
	esac
}

new_key() {
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.new"
	ln "$1.new" "$1" # fails if there is one by now
	rm "$1.new"
}

# publish FILE: moves FILE.new in place, in one step.
publish() {
	chmod 644 "$1.new"
	mv "$1.new" "$1"
}

serial() { echo "0x4$(openssl rand -hex 15)"; }

make_ca() {
	[ ! -e "$ca/ca.key" ] || die "$ca/ca.key is there already; another CA would shut out every host"
	mkdir -p "$ca"
	new_key "$ca/ca.key"
	cat >"$ca/ca.cnf" <<-END
		[req]
		distinguished_name = name
		x509_extensions = extensions
		prompt = no
		[name]
		CN = auditchain CA
		[extensions]
		basicConstraints = critical,CA:TRUE,pathlen:0
		keyUsage = critical,keyCertSign,cRLSign
		subjectKeyIdentifier = hash
	END
	openssl req -x509 -new -config "$ca/ca.cnf" -key "$ca/ca.key" -sha256 -days 3650 -set_serial "$(serial)" -out "$ca/ca.crt.new"
	rm "$ca/ca.cnf"
	publish "$ca/ca.crt"
	echo "$ca/ca.crt"
}

# issue PURPOSE NAME...: PURPOSE is serverAuth or clientAuth, never both: no GPU server can pose as the aggregator.
issue() {
	purpose=$1
	shift
	[ -r "$ca/ca.key" ] || die "$ca/ca.key is not there: make the CA first"
	host=$dir/$1
	names=
	for name; do
		check_name "$name"
		names=${names:+$names,}$(alternative "$name")
	done
	mkdir -p "$host"
	[ -e "$host/purpose" ] || echo "$purpose" >"$host/purpose"
	[ "$(cat "$host/purpose")" = "$purpose" ] || die "$host is for $(cat "$host/purpose"); one key is not for both"
	[ -e "$host/tls.key" ] || new_key "$host/tls.key"
	cat >"$host/tls.cnf" <<-END
		[req]
		distinguished_name = name
		prompt = no
		[name]
		CN = $1
		[extensions]
		basicConstraints = critical,CA:FALSE
		keyUsage = critical,digitalSignature
		extendedKeyUsage = $purpose
		subjectAltName = $names
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
	END
	openssl req -new -config "$host/tls.cnf" -key "$host/tls.key" -sha256 -out "$host/tls.csr"
	said=$(openssl x509 -req -in "$host/tls.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -sha256 -days "$days" -set_serial "$(serial)" \
		-extfile "$host/tls.cnf" -extensions extensions -out "$host/tls.crt.new" 2>&1) || die "$host/tls.crt: $said"
	rm "$host/tls.cnf" "$host/tls.csr"
	cp "$ca/ca.crt" "$host/ca.crt.new"
	publish "$host/ca.crt"
	publish "$host/tls.crt"
	echo "$host: for $names, until $(openssl x509 -in "$host/tls.crt" -noout -enddate | cut -d= -f2)"
}

[ $# -ge 2 ] || usage
dir=$1
ca=$dir/ca
command=$2
shift 2
days=${DAYS:-397}
case $days in
'' | 0* | *[!0-9]* | ?????*) die "DAYS is \"$days\", not a number of days" ;;
esac

case $command:$# in
ca:0) make_ca ;;
server:0 | client:0) usage ;;
server:*) issue serverAuth "$@" ;;
client:1) issue clientAuth "$@" ;;
*) usage ;;
esac
