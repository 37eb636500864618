module github.com/auditchain/auditchain/test/peers/torchwood

go 1.26.0

// Of torchwood its root package is tested, which does without this one.
exclude sigsum.org/sigsum-go v0.6.1

replace github.com/auditchain/auditchain => ../../..

require (
	filippo.io/torchwood v0.9.0
	github.com/auditchain/auditchain v0.0.0-00010101000000-000000000000
	golang.org/x/mod v0.42.0
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/transparency-dev/merkle v0.0.2 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/sync v0.19.0 // indirect
)
