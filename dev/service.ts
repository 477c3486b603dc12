import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { aloud, DevError, say } from './messages.ts'
import { startChild } from './processes.ts'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Runs `src/main.ts` with a word of its command line; both streams go where ours go. */
export function startService(command: 'serve' | 'migrate', env: NodeJS.ProcessEnv): ChildProcess {
  // Through this process, unless it is a terminal: only who writes sees that nobody reads any more.
  const stdout = process.stdout.isTTY ? 'inherit' : 'pipe'
  const child = startChild(process.execPath, ['src/main.ts', command], {
    cwd: ROOT,
    env,
    stdio: ['ignore', stdout, 'inherit'],
  })
  child.stdout?.pipe(process.stdout, { end: false })
  return child
}

/**
 * Brings the database to the sources' migrations.
 * @param own whether the database is this clone's: it may be made anew
 * @throws DevError when that fails, for which `migrate` has said the reason
 */
export async function applyMigrations(env: NodeJS.ProcessEnv, own: boolean, signal?: AbortSignal): Promise<void> {
  const migrating = startService('migrate', env)
  const stop = () => void migrating.kill('SIGTERM')
  signal?.addEventListener('abort', stop)
  const waiting = () =>
    'Applying the migrations. This takes longer while the database starts, or others hold its tables.'
  const [code] = await aloud(say, waiting, once(migrating, 'close'))
  signal?.removeEventListener('abort', stop)
  if (code === 0 || signal?.aborted) return
  const remedy = own ? ' To start anew with an empty database: npm run dev -- --reset' : ''
  throw new DevError(`The migrations could not be applied.${remedy}`)
}
