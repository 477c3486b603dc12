import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { freePort } from '../dev/postgres.ts'
import { mayEnter } from '../dev/programs.ts'
import { projectFiles } from './files.ts'
import { ROOT, type Running, type RunOptions, run } from './process.ts'

/** A user without rights: this one, or nobody where this one is root. */
export const plainUser = (): { uid: number; gid: number } => {
  const [uid = 0, gid = 0] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0]
  if (uid !== 0) return { uid, gid }
  const id = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}

export type Clone = {
  folder: string
  /** A port that is free for this clone. */
  port: number
  /** A file of the clone. */
  path(name: string): string
  /** Runs a program in the clone. */
  run(command: string, args: string[], env?: Record<string, string>, options?: RunOptions): Running
  /** Runs `npm run dev -- ARGS` on a free port of this clone. */
  dev(args?: string[], env?: Record<string, string>, options?: RunOptions): Running & { origin: string }
  /** Where its data is. */
  data: string
}

/** The options of a clone: who owns it and works in it, and in which folder it is made. */
export type CloneOptions = { as?: { uid: number; gid: number }; below?: string }

/** A clone of the project, with what git has or would add, in a folder of its own; gone after the test. */
export async function makeClone({ as = plainUser(), below = tmpdir() }: CloneOptions = {}): Promise<Clone> {
  const folder = mkdtempSync(join(below, 'users-api-clone-'))
  const home = join(folder, 'home')
  const clone = join(folder, 'clone')
  const path = (name: string) => join(clone, name)
  const started: Running[] = []
  onTestFinished(async () => {
    for (const running of started) running.process.kill()
    await Promise.all(started.map(({ exited }) => exited))
    const data = path('.data/postgres')
    const isServed = () => existsSync(join(data, 'postmaster.pid')) && isAlive(postgresOf(data))
    await expect.poll(isServed).toBe(false)
    rmSync(folder, { recursive: true })
  })
  for (const name of projectFiles()) {
    mkdirSync(dirname(join(clone, name)), { recursive: true })
    cpSync(ROOT + name, join(clone, name), { verbatimSymlinks: true })
  }
  mkdirSync(home)
  if (mayEnter(ROOT, as)) symlinkSync(`${ROOT}node_modules`, join(clone, 'node_modules'))
  else cpSync(`${ROOT}node_modules`, join(clone, 'node_modules'), { recursive: true, verbatimSymlinks: true })
  if (process.getuid?.() === 0) execFileSync('chown', ['-RP', `${as.uid}:${as.gid}`, folder])
  const port = await freePort()
  function runHere(command: string, args: string[], env: Record<string, string> = {}, options: RunOptions = {}) {
    const settings = { HOME: home, npm_config_update_notifier: 'false', ...env }
    const running = run(command, args, settings, { cwd: clone, ...as, ...options })
    started.push(running)
    return running
  }
  return {
    folder: clone,
    port,
    path,
    data: path('.data/postgres'),
    run: runHere,
    dev: (args = [], env = {}, options = {}) => ({
      ...runHere('npm', ['run', 'dev', '--', ...args], { PORT: String(port), ...env }, options),
      origin: `http://localhost:${env.PORT ?? port}`,
    }),
  }
}

/** Waits until the banner is there; what it names answers then. */
export const served = (dev: Running) => dev.printed(/Ctrl-C stops everything/)

/** The process that a postmaster.pid names. */
export const postgresOf = (data: string) => Number.parseInt(readFileSync(join(data, 'postmaster.pid'), 'utf8'), 10)

/** The process that started another. PostgreSQL is started by the one that runs dev/start.js. */
export const parentOf = (pid: number) =>
  Number(execFileSync('ps', ['-o', 'ppid=', '-p', String(pid)], { encoding: 'utf8' }))

/** Whether a process lives; one that has ended and was not yet waited for does not. */
export function isAlive(pid: number): boolean {
  try {
    return !/^ *Z/.test(execFileSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' }))
  } catch {
    return false
  }
}

/** Waits until the API is gone and its port is free. */
export const portFree = (origin: string) =>
  expect
    .poll(() =>
      fetch(origin).then(
        () => 'answers',
        () => 'free',
      ),
    )
    .toBe('free')

/** Waits until neither the data's PostgreSQL nor the API is there, and the port is free. */
export async function nothingLeft(pid: number, origin: string) {
  await expect.poll(() => isAlive(pid)).toBe(false)
  await portFree(origin)
}
