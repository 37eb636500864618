package chain

import (
	"bytes"
	"testing"
)

func TestBundleSigner(t *testing.T) {
	manifests, _ := storedVectors(t)
	k, _ := vectorKey(t)
	if signer, err := BundleSigner(manifests[1]); err != nil || signer != k.Public().Fingerprint() {
		t.Errorf("%s, %v", signer, err)
	}
	for _, hint := range []string{"", "AAAA", "not base64"} {
		data := bytes.Replace(manifests[1], []byte(k.Public().hint()), []byte(hint), 1)
		if signer, err := BundleSigner(data); err == nil {
			t.Errorf("%q was taken for the key %s", hint, signer)
		}
	}
}
