package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
)

func newProve() *cobra.Command {
	var target targetFlags
	var entry entryFlags
	var head, oldHead, file string
	cmd := &cobra.Command{
		Use:   "prove [REQUEST_ID]",
		Short: "Prove that a record is in a head of the log, or that one head continues another",
		Long: `Prove that an entry is in a head of the log (C2SP tlog-proof), or, with --old-head, that the log was only appended to between
two heads (the body of C2SP tlog-witness's add-checkpoint). The head is the log's last one, or the one of --head.
"auditchain verify-proof" checks both, and so do other tools for transparency logs.

Exit code 0: proven. 1: not in the log. 2: could not tell.`,
		Example: `  auditchain prove 3f2c9a -o case.tlog-proof -c /etc/fluent-bit/fluent-bit.yaml --key audit.pub.pem
  auditchain prove --old-head march.head -o since-march.proof --bucket audit --chain audit.example.com/prod --key audit.pub.pem`,
		Args: func(cmd *cobra.Command, args []string) error {
			if oldHead != "" && (len(args) > 0 || entry.seq != "") {
				return errors.New("--old-head goes with no entry: it proves that one head continues another")
			}
			if oldHead != "" {
				return nil
			}
			return entry.args(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			log, place, err := proveWhere(cmd, &target, &entry, args, oldHead)
			if err != nil {
				return err
			}
			prover, err := log.NewProver(cmd.Context())
			if err != nil {
				return readHint(err)
			}
			later := prover.Checkpoint()
			if head != "" {
				if later, err = readCheckpoint(head); err != nil {
					return fmt.Errorf("--head: %w", err)
				}
			}
			var text string
			if oldHead != "" {
				var old string
				if old, err = readCheckpoint(oldHead); err != nil {
					return fmt.Errorf("--old-head: %w", err)
				}
				c, peekErr := chain.PeekCheckpoint(old)
				if peekErr != nil {
					return peekErr
				}
				var p chain.ConsistencyProof
				p, err = prover.Consistency(cmd.Context(), c, later)
				text = p.String()
			} else {
				var p chain.InclusionProof
				p, err = prover.Inclusion(cmd.Context(), place.Seq, later)
				text = p.String()
			}
			p := printer{w: cmd.OutOrStdout()}
			if errors.Is(err, query.ErrNotProven) {
				p.line("NOT PROVEN  %s", err)
				return errors.Join(p.err, verdict(exitNo))
			}
			if err != nil {
				return readHint(err)
			}
			if file == "" {
				p.print(text)
				return p.err
			}
			if p.w, err = output(cmd, file, []byte(text)); err != nil {
				return err
			}
			p.line("PROOF     in %s", file)
			if vkey, ok := prover.CheckpointKey(later); ok {
				p.line("  checkpoint key  %s", vkey)
			}
			return p.err
		},
	}
	target.add(cmd)
	target.addKey(cmd)
	entry.add(cmd)
	cmd.Flags().StringVar(&head, "head", "", "file with the head that it is proven in (of --save-head, a manifest, a checkpoint); default: the log's last")
	cmd.Flags().StringVar(&oldHead, "old-head", "", "file with an earlier head: prove that the log continues it")
	cmd.Flags().StringVarP(&file, "output", "o", "", "file to write; default: standard output")
	return cmd
}

// proveWhere finds the log and, if an entry is to be proven, its place.
func proveWhere(cmd *cobra.Command, target *targetFlags, entry *entryFlags, args []string, oldHead string) (*query.Log, query.Place, error) {
	if oldHead == "" {
		log, place, _, err := entry.find(cmd, target, args)
		return log, place, err
	}
	sections, err := target.sections()
	if err != nil {
		return nil, query.Place{}, err
	}
	if len(sections) > 1 {
		return nil, query.Place{}, hint(errors.New("a head is one chain's, and the configuration has several"), "choose one with --chain")
	}
	log, err := target.log(cmd.Context(), sections[0])
	return log, query.Place{}, err
}

// readCheckpoint returns the checkpoint of a kept head, a signed note.
func readCheckpoint(path string) (string, error) {
	kept, _, err := readHead(path)
	if err != nil {
		return "", err
	}
	if kept.Checkpoint == "" {
		return "", errors.New("a hash alone is no head to prove anything in")
	}
	return kept.Checkpoint, nil
}

func newVerifyProof() *cobra.Command {
	var entry, oldHead, vkey string
	cmd := &cobra.Command{
		Use:   "verify-proof PROOF --checkpoint-key KEY (--entry FILE | --old-head FILE)",
		Short: "Check a proof that \"auditchain prove\" made, offline",
		Long: `Check an inclusion proof against an entry's line, or a consistency proof against the earlier head.

Exit code 0: proven. 1: the proof does not hold. 2: could not tell.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if vkey == "" || (entry == "") == (oldHead == "") {
				return hint(errors.New("no key, or not one of --entry and --old-head, given"), "%s", cmd.UseLine())
			}
			proof, err := readFile(args[0], chain.MaxProofText)
			if err != nil {
				return err
			}
			p := printer{w: cmd.OutOrStdout()}
			var c chain.Checkpoint
			if entry != "" {
				line, err := readFile(entry, chain.MaxLine+1)
				if err != nil {
					return err
				}
				if n := len(line); n > 0 && line[n-1] == '\n' {
					line = line[:n-1]
				}
				proof, err := chain.ParseInclusionProof(string(proof))
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if c, err = proof.Verify(chain.Sum(line), vkey); err != nil {
					p.line("NOT PROVEN  %s", err)
					return errors.Join(p.err, verdict(exitNo))
				}
				p.line("PROVEN    the entry is number %d of %s", proof.Index, c.Origin)
			} else {
				text, err := readCheckpoint(oldHead)
				if err != nil {
					return fmt.Errorf("--old-head: %w", err)
				}
				old, err := chain.PeekCheckpoint(text)
				if err != nil {
					return fmt.Errorf("--old-head: %w", err)
				}
				proof, err := chain.ParseConsistencyProof(string(proof))
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if c, err = proof.Verify(old, vkey); err != nil {
					p.line("NOT PROVEN  %s", err)
					return errors.Join(p.err, verdict(exitNo))
				}
				p.line("PROVEN    %s was only appended to, from %d entries on", c.Origin, old.Size)
			}
			p.line("  tree    %d entries, root %s", c.Size, c.Root)
			return p.err
		},
	}
	cmd.Flags().StringVar(&vkey, "checkpoint-key", "", "verifier key of the log's checkpoints, as the genesis or a rotation names it")
	cmd.Flags().StringVar(&entry, "entry", "", "file with the entry's line, as `auditchain evidence --format dir` writes it (entry.json)")
	cmd.Flags().StringVar(&oldHead, "old-head", "", "file with the earlier head")
	return cmd
}
