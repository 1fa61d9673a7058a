// The Inspector's command, once per call; its style is the era it is told to speak.

import { spawn } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { packages, serve } from './harness.mjs'

const COMMAND = packages.resolve('@modelcontextprotocol/inspector/clients/launcher/build/index.js')
const folder = mkdtempSync(join(tmpdir(), 'inspector-'))

await serve(async (style, at) => async (tool, given, seconds) => {
  const config = join(folder, 'servers.json')
  const server = at.url
    ? { type: 'streamable-http', url: at.url }
    : { type: 'stdio', command: at.command[0], args: at.command.slice(1), env: at.env }
  if (seconds) server.requestTimeout = seconds * 1000
  writeFileSync(config, JSON.stringify({ mcpServers: { gateway: server } }))
  const run = spawn(process.execPath, [COMMAND, '--cli', '--config', config, '--server', 'gateway',
    '--protocol-era', style, '--format', 'json', '--method', 'tools/call', '--tool-name', tool,
    '--tool-args-json', JSON.stringify(given)],
  { stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err] = await Promise.all([text(run.stdout), text(run.stderr)])
  if (!out.trim()) throw new Error(err.trim())
  return JSON.parse(out).result ?? JSON.parse(out)
})
