package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The SDKs, as npm has them.
const npmPackages = "openai@7.57.0 @anthropic-ai/sdk@1.14.0"

const sdkScript = `
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
const openai = new OpenAI(), anthropic = new Anthropic(); // from the environment
let calls = 0, chunks = 0;
for (let i = 0; i < 55; i++) {
  const messages = [{ role: 'user', content: 'hello' }];
  const plain = await openai.chat.completions.create({ model: 'gpt', messages });
  if (plain.choices[0].message.content !== 'hello') throw new Error('plain: ' + JSON.stringify(plain));
  const stream = await openai.chat.completions.create({ model: 'gpt', messages, stream: true });
  for await (const chunk of stream) chunks += chunk.choices[0].delta.content ? 1 : 0;
  const message = await anthropic.messages.create({ model: 'claude', max_tokens: 10, messages });
  if (message.content[0].text !== 'hello') throw new Error('message: ' + JSON.stringify(message));
  const events = await anthropic.messages.create({ model: 'claude', max_tokens: 10, messages, stream: true });
  for await (const event of events) chunks += event.type === 'content_block_delta' ? 1 : 0;
  calls += 4;
}
console.log(JSON.stringify({ calls, chunks }));
`

// 220 calls of the npm packages, plain and streams, while tokens are revoked.
func TestExecSDKsOfNode(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	install := exec.Command("npm", append([]string{"install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", dir}, strings.Fields(npmPackages)...)...)
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("npm cannot install them: %s", out)
	}
	script := filepath.Join(dir, "sdk.mjs")
	require.NoError(t, os.WriteFile(script, []byte(sdkScript), 0o600))

	u := newUpstream(t)
	var n atomic.Int64
	u.answers(func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ Stream bool }
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &asked)
		isClaude := strings.HasSuffix(r.URL.Path, "/messages")
		switch {
		case asked.Stream:
			w.Header().Set("Content-Type", "text/event-stream")
			for range 3 {
				if isClaude {
					_, _ = io.WriteString(w, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n")
				} else {
					_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n")
				}
				_ = http.NewResponseController(w).Flush()
			}
			if isClaude {
				_, _ = io.WriteString(w, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
			} else {
				_, _ = io.WriteString(w, "data: [DONE]\n\n")
			}
		case isClaude:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"hello"}]}`)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"hello"}}]}`)
		}
		if n.Add(1)%40 == 0 { // five times
			u.rotate()
		}
	})
	out, status := runProcess(t, "exec", "-q", "--source", "file:"+u.file, "--to", u.URL+"/v1", "--env", "ANTHROPIC_AUTH_TOKEN=", "--", "node", script)
	require.Zero(t, status, out)
	assert.Equal(t, fmt.Sprintln(`{"calls":220,"chunks":330}`), out)
	assert.EqualValues(t, 220, n.Load(), "the SDKs sent nothing twice")
}
