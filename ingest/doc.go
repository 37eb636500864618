// Package ingest is the writer: it takes chunks from Fluent Bit, chains their events into a journal on the local disk,
// and turns the journal, in the background, into segments and manifests in a bucket. See [Log].
package ingest
