// mlx-c writes a few error texts by std::format, which GCC 12's library lacks. Where the real one is missing this stands in
// for the only form that mlx-c uses: `{}` replaced by the next argument, in order.
#pragma once
#include <version>
#ifndef __cpp_lib_format
#include <sstream>
#include <string>
#include <string_view>

namespace std {
template <typename... Args>
string format(string_view text, const Args&... args) {
  ostringstream out;
  auto next = [&](const auto& value) {
    auto hole = text.find("{}");
    out << text.substr(0, hole);
    if (hole == string_view::npos) {
      text = {};
      return;
    }
    out << value;
    text.remove_prefix(hole + 2);
  };
  (next(args), ...);
  out << text;
  return out.str();
}
} // namespace std
#endif
