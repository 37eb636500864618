module github.com/auditchain/auditchain

go 1.26.0
