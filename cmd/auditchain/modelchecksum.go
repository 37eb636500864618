package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/model"
)

func newModelChecksum() *cobra.Command {
	var files, asJSON bool
	cmd := &cobra.Command{
		Use:   "model-checksum DIRECTORY|FILE",
		Short: "Compute the checksum of a model, as records name it in model_checksum",
		Long: `Compute the checksum of a model, as records name it in model_checksum: sha256: and the SHA-256 of a manifest that has one line
for each file, "<SHA-256>  <path>", as sha256sum writes it, the paths relative to the directory and sorted by their bytes.

All files count but hidden ones and those that document the model (README*, LICENSE*, NOTICE*, *.md, *.pdf, images), in all directories
that are not hidden. Links are followed. A single file is the manifest of that file by its base name.

Refused is what cannot be read or changes meanwhile; what is neither a file nor a directory; a link to nothing, or to a directory that it lies in;
a name with a newline, a carriage return or a backslash, or "-" alone, which sha256sum writes or reads otherwise; and a model without files.

Exit code 0: done. 2: could not tell.`,
		Example: `  auditchain model-checksum /models/llama-3.1-8b
  auditchain model-checksum --files /models/llama-3.1-8b > llama.sha256 && sha256sum llama.sha256
  cd /models/llama-3.1-8b && sha256sum -c llama.sha256`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return hint(fmt.Errorf("model-checksum wants one directory or file, not %d", len(args)), "%s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			progress, clear := newProgress(cmd.ErrOrStderr(), "reading")
			manifest, err := model.Read(cmd.Context(), args[0], progress)
			clear()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case files:
				_, err = out.Write(manifest.Text())
			case asJSON:
				err = writeJSON(out, struct {
					Checksum string `json:"checksum"`
					Files    int    `json:"files"`
					Bytes    int64  `json:"bytes"`
				}{manifest.Checksum(), len(manifest), manifest.Size()})
			default:
				_, err = fmt.Fprintln(out, manifest.Checksum())
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "print the manifest instead, which sha256sum -c takes in the directory")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: checksum, number of files and of bytes")
	cmd.MarkFlagsMutuallyExclusive("files", "json")
	return cmd
}
