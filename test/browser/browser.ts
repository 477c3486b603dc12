import axe, { type AxeResults } from 'axe-core'
import { type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { expect, onTestFinished } from 'vitest'

/** Chromium as the system has it: nothing is downloaded. */
export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' })

export type Browser = Awaited<ReturnType<typeof launch>>

/** How wide the content is: more than the screen if something sticks out. */
export const widthOf = (page: Page) => page.evaluate<number>('document.documentElement.scrollWidth')

export const PHONE = { width: 390, height: 844 }

/**
 * A tab of its own. When its test has finished, no request of it has left the service, and nothing has offended against a
 * Content-Security-Policy.
 */
export async function openTab(browser: Browser, baseURL: string, options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext({ baseURL, ...options })
  const page = await context.newPage()
  const faults: string[] = []
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url())
    if (protocol !== 'data:' && origin !== baseURL) faults.push(request.url())
  })
  page.on('console', (message) => {
    if (/Content.Security.Policy/i.test(message.text())) faults.push(message.text())
  })
  page.on('pageerror', (error) => faults.push(error.message))
  onTestFinished(async () => {
    await context.close()
    expect(faults).toEqual([])
  })
  return page
}

/** What axe finds wrong on a page, each as a rule and the elements that break it. */
export async function violationsOf(page: Page, selector = 'html'): Promise<string[]> {
  await page.evaluate(axe.source)
  const found = await page.evaluate<AxeResults>(`axe.run('${selector}')`)
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' | ')}`)
}
