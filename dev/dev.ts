// `npm run dev`: PostgreSQL, its migrations, and the API that starts again when a source changes.
import type { ChildProcess } from 'node:child_process'
import { parseArgs } from 'node:util'
import { type Config, parseConfig } from '../src/config.ts'
import { dataFolder, removeData } from './data.ts'
import { type Environment, readEnvironment } from './environment.ts'
import { describe, isForeign } from './foreign.ts'
import { aloud, DevError, exitCode, say } from './messages.ts'
import { assertFree, originOf, whenListening } from './port.ts'
import { freePort, startPostgres } from './postgres.ts'
import { commandOf, endChild, exists } from './processes.ts'
import { applyMigrations, ROOT, startService } from './service.ts'
import { watchSources } from './sources.ts'

const USAGE = `Usage: npm run dev [-- OPTIONS]

  --reset    first delete the data of this clone, and start with an empty database
  --migrate  bring a database of your own to the migrations, although it has tables of something else
`
const NPM_INTERVAL_MS = 500
/** How long the API has to end, beyond DRAIN_DELAY_MS. */
const GRACE_MS = 3000

/** Aborted when all is to end; with a DevError as its reason if that is a failure. */
const stopping = new AbortController()

function stopOnSignals() {
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(name, () => stopping.abort())
  // Whoever read the output, or the terminal, is gone.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => stopping.abort())
}

/** Stops when npm has ended, for it may tell nobody: a SIGTERM it hands to its shell alone, and a SIGKILL to none. */
async function stopWithNpm() {
  const { npm_lifecycle_script: script } = process.env
  const { ppid } = process
  if (!script) return
  // Most shells give way to this process, and npm is its parent. Where one waits beside it, npm is the shell's.
  const parent = await commandOf(ppid)
  const npm = parent?.command.includes(script) ? parent.ppid : ppid
  const isGone = () => process.ppid !== ppid || !exists(npm)
  setInterval(() => isGone() && stopping.abort(), NPM_INTERVAL_MS).unref()
}

function readOptions(args: string[]) {
  try {
    return parseArgs({ args, options: { reset: { type: 'boolean' }, migrate: { type: 'boolean' } } }).values
  } catch (error) {
    throw new DevError(`${error instanceof Error ? error.message : error}\n\n${USAGE}`)
  }
}

type Database = {
  /** undefined for one of the person's own, which the environment names already. */
  url: string | undefined
  /** The lines of the banner. */
  lines: string
  stop(): Promise<void>
}

/** Starts the database of this clone, or asks whether one of the person's own may be used. */
async function openDatabase({ database }: Environment, config: Config, args: { reset?: boolean; migrate?: boolean }) {
  if (database === undefined) return await startOwn(args.reset ?? false)
  if (args.reset) throw new DevError(`--reset is for the database of this clone, and ${database} names another.`)
  const { address } = config
  if (!args.migrate && (await isForeign(address, config.MIGRATE_WAIT_MS, say, stopping.signal))) {
    throw new DevError(
      `The database ${describe(address)} (${database}) has tables of something else. To add ours: npm run dev -- --migrate`,
    )
  }
  return { url: undefined, lines: `Database    ${describe(address)} (${database})`, stop: async () => {} }
}

async function startOwn(reset: boolean): Promise<Database> {
  const dataDir = dataFolder()
  if (reset) removeData(dataDir)
  const { url, process: server, log, stop } = await startPostgres({ dataDir, say })
  const fail = (code: number | null, signal: NodeJS.Signals | null) => {
    const last = log().split('\n').at(-1)
    stopping.abort(new DevError(`PostgreSQL has ended (${signal ?? `exit code ${code}`}): ${last}`))
  }
  server.once('exit', fail)
  return {
    url,
    lines: `Database    ${url}\n  Data        ${dataDir}`,
    async stop() {
      server.off('exit', fail)
      await stop()
    },
  }
}

const banner = (origin: string, database: string) => `
  Users API   ${origin}/users
  Reference   ${origin}/docs
  ${database}

  Try it:     curl -X POST ${origin}/users -H "Content-Type: application/json" -d '{"username": "Alice", "email": "alice@example.com"}'
              curl ${origin}/users

  Sources are watched. Ctrl-C stops everything.
`

/** Starts the API. It ends by itself when a source is wrong. */
function startApi(env: NodeJS.ProcessEnv): ChildProcess {
  const api = startService('serve', env)
  api.once('error', ({ message }) =>
    say(`The API could not be started: ${message}. It is tried again at the next save.`),
  )
  api.once('exit', (code, signal) => {
    if (api.killed) return
    say(`The API has ended (${signal ?? `exit code ${code}`}). It starts again when a source is saved.`)
  })
  return api
}

/** Serves until `stopping`: ends the API at each change of a source, and starts it again. */
async function serve(env: NodeJS.ProcessEnv, own: boolean, graceMs: number, greet: (api: ChildProcess) => void) {
  const nextChange = watchSources(ROOT)
  let migrated = true
  for (;;) {
    const api = migrated ? startApi(env) : undefined
    if (api) greet(api)
    const changed = await nextSource(nextChange).catch((error) => {
      if (stopping.signal.aborted) return []
      throw error
    })
    const sentence = () => 'Waiting for requests that are not answered yet.'
    if (api) await aloud(say, sentence, endChild(api, 'SIGTERM', graceMs))
    if (stopping.signal.aborted) return
    say(`Changed: ${changed.join(', ')}`)
    if (!migrated || changed.some((name) => name.startsWith('drizzle'))) migrated = await tryMigrations(env, own)
  }
}

/** The next files of the API that were changed; none when all is to end. */
async function nextSource(nextChange: ReturnType<typeof watchSources>): Promise<string[]> {
  while (!stopping.signal.aborted) {
    const changed = await nextChange(stopping.signal)
    if (changed.includes('.env')) say('.env has changed: stop `npm run dev` and start it again to use it.')
    const sources = changed.filter((name) => name !== '.env')
    if (sources.length > 0) return sources
  }
  return []
}

async function tryMigrations(env: NodeJS.ProcessEnv, own: boolean): Promise<boolean> {
  try {
    await applyMigrations(env, own, stopping.signal)
    return true
  } catch (error) {
    if (!(error instanceof DevError)) throw error
    say(`${error.message}\nIt tries again when a file is saved.`)
    return false
  }
}

async function dev(args: string[]) {
  const options = readOptions(args)
  stopOnSignals()
  void stopWithNpm()
  const environment = readEnvironment()
  const settings = { ...environment.env, DRAIN_DELAY_MS: environment.env.DRAIN_DELAY_MS || '0' }
  const config = parseConfig(settings)
  const host = config.HOST
  const port = config.PORT || (await freePort())
  await assertFree(port, host)
  const database = await openDatabase(environment, config, options)
  try {
    const env = { ...settings, PORT: String(port), ...(database.url !== undefined && { DATABASE_URL: database.url }) }
    const own = database.url !== undefined
    await applyMigrations(env, own, stopping.signal)
    if (stopping.signal.aborted) return
    let greeted = false
    await serve(env, own, GRACE_MS + config.DRAIN_DELAY_MS, (api) => {
      if (greeted) return
      void whenListening(api, host, port, () => {
        greeted = true
        say(banner(originOf(host, port), database.lines))
      })
    })
  } finally {
    await aloud(say, () => 'Waiting for PostgreSQL to stop.', database.stop())
  }
}

/** Runs until a signal, or until something fails. @returns the exit code */
export const main = (args: string[]) =>
  exitCode(async () => {
    try {
      await dev(args)
    } catch (error) {
      // What was under way when all was to end.
      if (!stopping.signal.aborted) throw error
    }
    if (stopping.signal.reason instanceof DevError) throw stopping.signal.reason
  })
