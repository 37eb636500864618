module github.com/auditchain/auditchain/test/bench/record-peers

go 1.26.0

replace github.com/auditchain/auditchain => ../../..

require (
	github.com/auditchain/auditchain v0.0.0-00010101000000-000000000000
	github.com/fluent/fluent-bit-go v0.0.0-20230731091245-a7a013e2473c
	github.com/tinylib/msgp v1.6.5
	github.com/ugorji/go/codec v1.3.2
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/philhofer/fwd v1.2.0 // indirect
	github.com/transparency-dev/merkle v0.0.2 // indirect
	golang.org/x/mod v0.42.0 // indirect
)
