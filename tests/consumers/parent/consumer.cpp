/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* What consumer.c does, in C++. */

#include <bgloop/bgloop.hpp>

#include <iostream>
#include <string>

int
main ()
{
  bgloop::Loop loop ("consumer");
  std::string name = loop.call ([&] { return std::string (bg_loop_get_name (loop)); });

  loop.shutdown ();
  std::cout << name << ' ' << bg_get_major_version () << '.' << bg_get_minor_version () << '.'
            << bg_get_micro_version () << '\n';
  return 0;
}
