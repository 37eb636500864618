package chain

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxManifest is the largest manifest that is written or read, in bytes.
const MaxManifest = 16 << 20

// payloadType is DSSE's name for an in-toto statement.
const payloadType = "application/vnd.in-toto+json"

// ErrSignature says that a manifest is not signed by the key it was checked against.
var ErrSignature = errors.New("signature does not verify")

// bundle is a Sigstore bundle v0.3 around a DSSE envelope, as far as a bundle with a key of one's own goes.
type bundle struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
	} `json:"verificationMaterial"`
	Envelope envelope `json:"dsseEnvelope"`
}

type envelope struct {
	Payload     []byte              `json:"payload"`
	PayloadType string              `json:"payloadType"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid,omitempty"`
}

// pae is DSSE's pre-authentication encoding: what is signed.
func pae(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// SignBundle wraps payload, an in-toto statement, in a DSSE envelope with k's one signature, and that in a bundle.
func SignBundle(k *SigningKey, payload []byte) ([]byte, error) {
	sig, err := k.Sign(pae(payload))
	if err != nil {
		return nil, fmt.Errorf("signing a manifest: %w", err)
	}
	var b bundle
	b.MediaType = ManifestMediaType
	b.VerificationMaterial.PublicKey.Hint = k.public.hint()
	b.Envelope = envelope{Payload: payload, PayloadType: payloadType, Signatures: []envelopeSignature{{Sig: sig}}}
	return json.Marshal(b)
}

// openBundle reads a bundle. Its signature is not yet checked.
func openBundle(data []byte) (*bundle, error) {
	if len(data) > MaxManifest {
		return nil, fmt.Errorf("it has %d bytes, more than the %d allowed", len(data), MaxManifest)
	}
	b := new(bundle)
	if err := strictJSON(data, b); err != nil {
		return nil, fmt.Errorf("it is no Sigstore bundle: %w", err)
	}
	// One bundle has one spelling: keys in their case, base64 without stray bits, nothing repeated.
	if again, err := json.Marshal(b); err != nil || !bytes.Equal(again, data) {
		return nil, errors.New("it is a Sigstore bundle, but not in its one spelling")
	}
	switch {
	case b.MediaType != ManifestMediaType:
		return nil, fmt.Errorf("its media type is %q, want %s", b.MediaType, ManifestMediaType)
	case b.Envelope.PayloadType != payloadType:
		return nil, fmt.Errorf("its payload type is %q, want %s", b.Envelope.PayloadType, payloadType)
	case len(b.Envelope.Signatures) != 1:
		return nil, fmt.Errorf("it has %d signatures, want exactly one", len(b.Envelope.Signatures))
	case b.Envelope.Signatures[0].KeyID != "":
		return nil, errors.New("its signature has a keyid, which is none of the format")
	}
	return b, nil
}

// BundlePayloadHash returns the SHA-256 of a bundle's payload: by it manifests are told apart, whatever their signature.
func BundlePayloadHash(data []byte) (Hash, error) {
	b, err := openBundle(data)
	if err != nil {
		return Hash{}, err
	}
	return Sum(b.Envelope.Payload), nil
}

// BundleSigner returns the fingerprint of the key with which a bundle says that it is signed. Nothing vouches for it: to tell people
// which key they have to look for, never to choose one by.
func BundleSigner(data []byte) (Hash, error) {
	b, err := openBundle(data)
	if err != nil {
		return Hash{}, err
	}
	hint, err := base64.StdEncoding.DecodeString(b.VerificationMaterial.PublicKey.Hint)
	if err != nil || len(hint) != HashSize {
		return Hash{}, errors.New("it does not say with which key it is signed")
	}
	return Hash(hint), nil
}

// strictJSON decodes one JSON value with nothing after it and no unknown fields.
func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes after its end")
	}
	return nil
}
