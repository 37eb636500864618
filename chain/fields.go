package chain

// Field is one of the audit fields whose presence makes a record complete.
type Field uint8

// The audit fields, in the order in which manifests and reports list them.
const (
	RequestID Field = iota
	Timestamp
	ModelID
	ModelChecksum
	InputHash
	OutputHash
	UserID
	InputTokens
	OutputTokens
	LatencyMS
	Status
	FieldCount = iota // how many there are
)

var fieldNames = [FieldCount]string{
	"request_id", "timestamp", "model_id", "model_checksum", "input_hash", "output_hash",
	"user_id", "input_tokens", "output_tokens", "latency_ms", "status",
}

// String returns the field's name in a record.
func (f Field) String() string { return fieldNames[f] }

// FieldSet is a set of audit fields: bit f stands for Field f.
type FieldSet uint16

// AllFields holds every audit field.
const AllFields FieldSet = 1<<FieldCount - 1

// Has reports whether f is in the set.
func (s FieldSet) Has(f Field) bool { return s>>f&1 == 1 }

// FieldNamed returns the set that holds just the audit field which a record's key names: its own name or the
// OpenTelemetry name that is taken for it. The set is empty for any other key.
func FieldNamed(key []byte) FieldSet {
	switch string(key) { // does not allocate
	case "request_id", "gen_ai.response.id":
		return 1 << RequestID
	case "timestamp":
		return 1 << Timestamp
	case "model_id", "gen_ai.response.model", "gen_ai.request.model":
		return 1 << ModelID
	case "model_checksum":
		return 1 << ModelChecksum
	case "input_hash":
		return 1 << InputHash
	case "output_hash":
		return 1 << OutputHash
	case "user_id", "user.id", "enduser.id":
		return 1 << UserID
	case "input_tokens", "gen_ai.usage.input_tokens":
		return 1 << InputTokens
	case "output_tokens", "gen_ai.usage.output_tokens":
		return 1 << OutputTokens
	case "latency_ms":
		return 1 << LatencyMS
	case "status", "http.response.status_code", "error.type":
		return 1 << Status
	}
	return 0
}
