import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from './process.ts'

/** The project's own files, relative to its folder: what git has or would add. In a downloaded archive, too. */
export function projectFiles(): string[] {
  // An empty repository elsewhere: a downloaded archive has none of its own.
  const repository = mkdtempSync(join(tmpdir(), 'files-'))
  const git = (...args: string[]) =>
    execFileSync('git', [`--git-dir=${repository}`, `--work-tree=${ROOT}`, ...args], { cwd: ROOT, encoding: 'utf8' })
  try {
    git('init', '--quiet')
    return git('ls-files', '-z', '--others', '--exclude-standard').split('\0').filter(Boolean)
  } finally {
    rmSync(repository, { recursive: true })
  }
}
