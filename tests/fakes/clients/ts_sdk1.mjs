// The TypeScript SDK 1.x.

import { packages, serve } from './harness.mjs'

const { Client } = packages('@modelcontextprotocol/sdk/client/index.js')
const { StdioClientTransport } = packages('@modelcontextprotocol/sdk/client/stdio.js')
const { StreamableHTTPClientTransport } = packages('@modelcontextprotocol/sdk/client/streamableHttp.js')

await serve(async (style, at) => {
  const client = new Client({ name: 'v1', version: '1' })
  await client.connect(at.url
    ? new StreamableHTTPClientTransport(new URL(at.url), { requestInit: { headers: at.headers } })
    : new StdioClientTransport({ command: at.command[0], args: at.command.slice(1), env: at.env, stderr: 'ignore' }))
  await client.listTools()
  return (name, given, seconds) =>
    client.callTool({ name, arguments: given }, undefined, seconds ? { timeout: seconds * 1000 } : {})
})
