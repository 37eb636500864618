package storage

// SetPageSize makes List ask for smaller pages.
func (s *S3) SetPageSize(n int) { s.pageSize = n }
