// `npm run check:fuzz`: Schemathesis sends the service what its description allows, and what it does not, and checks each
// answer against it: first without authentication, and then with it, where it also tries to do without its token. Needs
// python3, 3.11 or newer, and PyPI. What follows `--` goes to `st run`.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startIssuer } from './issuer.ts'
import { freePort, startPostgres } from './postgres.ts'

const fromRoot = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url))

const MAIN = fromRoot('src/main.ts')
/** Schemathesis and all that it needs, by their hashes. */
const REQUIREMENTS = ['--require-hashes', '--requirement', fromRoot('dev/schemathesis.txt')]

/** Also where Schemathesis leaves its files. */
const tools = mkdtempSync(join(tmpdir(), 'schemathesis-'))
const stopping = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stopping.abort())

const python = {
  ...process.env,
  PYTHONPATH: fromRoot('dev'),
  PYTHONDONTWRITEBYTECODE: '1',
  SCHEMATHESIS_HOOKS: 'schemathesis_lines',
}

async function run(command: string, args: string[], env: NodeJS.ProcessEnv = python) {
  const child = spawn(command, args, { cwd: tools, env, stdio: 'inherit', signal: stopping.signal })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${command} ended with ${code}.`)
}

const postgres = await startPostgres({ settings: { fsync: 'off' } })
const issuer = await startIssuer()
const env = { ...process.env, DATABASE_URL: postgres.url, HOST: '127.0.0.1', LOG_LEVEL: 'warn' }

/** Fuzzes a service with these settings. */
async function fuzz(settings: Record<string, string>, ...options: string[]) {
  const port = String(await freePort())
  const service = spawn(process.execPath, [MAIN], { env: { ...env, PORT: port, ...settings }, stdio: 'inherit' })
  try {
    const args = ['--config-file', fromRoot('dev/schemathesis.toml'), 'run', `http://127.0.0.1:${port}/openapi.json`]
    await run(join(tools, 'bin/st'), [...args, ...options, ...process.argv.slice(2)])
  } finally {
    service.kill()
    await once(service, 'exit')
  }
}

try {
  await run(process.execPath, [MAIN, 'migrate'], env)
  await run('python3', ['-m', 'venv', tools])
  await run(join(tools, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', ...REQUIREMENTS])
  await fuzz({})
  const token = await issuer.sign({ scope: 'users:read users:write' })
  await fuzz(issuer.env, '--header', `Authorization: Bearer ${token}`)
} finally {
  await issuer.close()
  await postgres.stop()
  rmSync(tools, { recursive: true })
}
