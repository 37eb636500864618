package main

import "testing"

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"plain Zażółć 日本語 😀":  "plain Zażółć 日本語 😀",
		"\x1b[2J\x1b[Hforged": `\u001b[2J\u001b[Hforged`,
		"a\nb":                `a\u000ab`,
		"c1\u009b31m":         `c1\u009b31m`,
		"\u202ebidi":          `\u202ebidi`,
		"bad\xff":             `bad\ufffd`,
	} {
		if got := harmless(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
