package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestUsage(t *testing.T) {
	_, errs, status := run(t, "", "explain", "--statsu", "401")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "did you mean --status?")
	_, errs, status = run(t, "", "explian")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "explain")
	_, errs, status = run(t, "", "token", "--lang", "zh")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "请指定令牌的来源")
	_, errs, status = run(t, "", "token", "--lang", "zh", "x", "y")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "用法或配置有误：", "what cobra says is repeated")
	_, errs, _ = run(t, "", "token", "--lang", "zh", "--outptu", "x")
	assert.Equal(t, "reauth: 没有选项 --outptu：是不是 --output？\n", errs)
	_, errs, status = run(t, "", "explain", "--lang", "fr", "x")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "en or zh")
}
