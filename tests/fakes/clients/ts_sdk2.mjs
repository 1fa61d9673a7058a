// The TypeScript SDK 2.x, whose style is how it negotiates the revision.

import { packages, serve } from './harness.mjs'

const { Client, StreamableHTTPClientTransport } = packages('@modelcontextprotocol/client')
const { StdioClientTransport } = packages('@modelcontextprotocol/client/stdio')

await serve(async (style, at) => {
  const client = new Client({ name: 'v2', version: '2' }, { versionNegotiation: { mode: style } })
  await client.connect(at.url
    ? new StreamableHTTPClientTransport(new URL(at.url), { requestInit: { headers: at.headers } })
    : new StdioClientTransport({ command: at.command[0], args: at.command.slice(1), env: at.env, stderr: 'ignore' }))
  await client.listTools()
  return (name, given, seconds) =>
    client.callTool({ name, arguments: given }, seconds ? { timeout: seconds * 1000 } : {})
})
