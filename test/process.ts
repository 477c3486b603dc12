import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { settings } from '../src/config.ts'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Well within a test's own time-out, so that it is said what was waited for. */
const PRINT_TIMEOUT_MS = 60_000

export type Running = {
  process: ChildProcess
  /** What it has printed, both streams. */
  output(): string
  stdout(): string
  stderr(): string
  /** Resolves when it has printed what matches, with the match; fails when it ends or takes too long instead. */
  printed(pattern: RegExp): Promise<RegExpExecArray>
  /** Its exit code, or the signal that ended it. */
  exited: Promise<number | NodeJS.Signals>
}

/** The environment without settings of ours, whatever the shell has exported, and with `env`. */
function environment(env: Record<string, string>) {
  const rest = { ...process.env }
  for (const { name } of settings) delete rest[name]
  return { ...rest, NODE_ENV: 'production', ...env }
}

/** Where a program runs and as whom, if not in the project's folder as this user. */
export type RunOptions = { cwd?: string; uid?: number; gid?: number }

/** Runs a program for a test; `exited` must be waited for. */
export function run(command: string, args: string[], env: Record<string, string> = {}, options: RunOptions = {}) {
  const child = spawn(command, args, {
    cwd: ROOT,
    env: environment(env),
    ...options,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  // Where the test failed before it ended.
  onTestFinished(() => void child.kill())
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.on('close', (code, signal) => resolve(code ?? signal ?? 1))
  })
  const output = () => stdout + stderr
  return {
    process: child,
    output,
    stdout: () => stdout,
    stderr: () => stderr,
    exited,
    async printed(pattern: RegExp) {
      const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>()
      const look = () => {
        const match = pattern.exec(output())
        if (match) resolve(match)
      }
      const give = (why: string) => reject(new Error(`${why} before it printed ${pattern}: ${output()}`))
      const timer = setTimeout(() => give(`${PRINT_TIMEOUT_MS} ms passed`), PRINT_TIMEOUT_MS)
      const streams = [child.stdout, child.stderr]
      for (const stream of streams) stream.on('data', look)
      look()
      void exited.then((code) => give(`It ended with ${code}`))
      try {
        return await promise
      } finally {
        clearTimeout(timer)
        for (const stream of streams) stream.off('data', look)
      }
    },
  } satisfies Running
}

/** Runs `node src/main.ts` with these words. */
export const main = (args: string[], env: Record<string, string> = {}) =>
  run(process.execPath, ['src/main.ts', ...args], env)

/** A folder with the project's programs, for tests that change sources or leave data; gone after the test. */
export function copyProject(): string {
  const folder = mkdtempSync(join(tmpdir(), 'users-api-copy-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  for (const name of ['src', 'assets', 'dev', 'drizzle', 'drizzle.config.ts', 'package.json']) {
    cpSync(ROOT + name, join(folder, name), { recursive: true })
  }
  symlinkSync(`${ROOT}node_modules`, join(folder, 'node_modules'))
  return folder
}
