// The token of this tab. It is in sessionStorage and in headers, never in an address, in a log or in another tab.

const NAME = 'logline.token';

/** Takes a token that came once behind `#token=`, and removes it from the address and from the history. */
export function takeFromAddress() {
  const fragment = location.hash.slice(1);
  if (!fragment.startsWith('token=')) return;
  const [token, ...view] = fragment.slice('token='.length).split('&view=');
  let rest = '';
  try {
    if (token) sessionStorage.setItem(NAME, decodeURIComponent(token));
    rest = view.length > 0 ? decodeURIComponent(view.join('&view=')) : '';
  } catch {
    // What is not encoded as it should be is no token.
  }
  history.replaceState(null, '', `${location.pathname}${location.search}#${rest.startsWith('/') ? rest : '/overview'}`);
}

export const token = () => sessionStorage.getItem(NAME);
export const keep = (text) => sessionStorage.setItem(NAME, text);
export const forget = () => sessionStorage.removeItem(NAME);
