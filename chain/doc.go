// Package chain is auditchain's format, version 1, and its mathematics: entry lines and their hash chain, the RFC 6962
// tree, segments, manifests, signatures, checkpoints, proofs, evidence and verification. It is pure: it opens no file and no connection,
// reads no clock and imports nothing else of this module, so that an auditor's own program can use it alone.
//
// docs/FORMAT.md is the normative description of what this package reads and writes.
package chain
